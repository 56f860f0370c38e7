"""Storage volumes: files of machines on a hypervisor that cannot read this user's files (qemu:///system, another host).

They are sent and fetched in streams over the libvirt connection, so neither a shared directory nor another connection is needed.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from baker.core.errors import HostError
from baker.core.resources import Resources
from baker.machines.libvirt.connection import Connection, host_error
from baker.machines.libvirt.library import libvirt

VOLUME = "libvirt:volume"  # a kind in the ledger
POOL = "default"
CHUNK = 1 << 18


@dataclass(frozen=True)
class Volumes:
    """The volumes of one machine in one pool. Each is entered in the ledger before it is created."""

    connection: Connection
    pool: libvirt.virStoragePool
    prefix: str
    resources: Resources

    def upload(self, name: str, source: Path) -> Path:
        """Create a volume with the bytes of `source`. Returns its path on the hypervisor's host."""
        volume = self._create(name, source.stat().st_size, "raw")
        stream = self.connection.handle.newStream()
        try:
            volume.upload(stream, 0, source.stat().st_size)
            with source.open("rb") as file:
                stream.sendAll(lambda _stream, size, _opaque: file.read(min(size, CHUNK)), None)
            stream.finish()
            return Path(volume.path())
        except libvirt.libvirtError as error:
            raise host_error(error, f"cannot send {source.name} to {self.connection.uri}", code="machine.volume-failed") from error

    def overlay(self, name: str, backing: Path, size: int) -> Path:
        """Create a qcow2 volume of `size` bytes whose backing file is the qcow2 volume `backing`. Returns its path."""
        return Path(self._create(name, size, "qcow2", backing).path())

    def reserve(self, name: str) -> Path:
        """The path of a file in the pool that libvirt will create, and that is deleted with the other volumes."""
        target = ET.fromstring(self.pool.XMLDesc()).findtext("target/path")  # noqa: S314 - the hypervisor's own answer
        self._enter(name)
        return Path(target or "/") / (self.prefix + name)

    def download(self, name: str, destination: Path) -> None:
        """Write the bytes of a volume to a local file."""
        stream = self.connection.handle.newStream()
        try:
            volume = self.pool.storageVolLookupByName(self.prefix + name)
            with destination.open("wb") as file:
                volume.download(stream, 0, 0)
                stream.recvAll(_write, file)
                stream.finish()
        except libvirt.libvirtError as error:
            raise host_error(error, f"cannot fetch the disk from {self.connection.uri}", code="machine.volume-failed") from error

    def _enter(self, name: str) -> None:
        full, pool = self.prefix + name, self.pool.name()
        self.resources.enter(VOLUME, lambda: delete(self.connection, pool, full), uri=self.connection.uri, pool=pool, name=full)

    def _create(self, name: str, size: int, kind: str, backing: Path | None = None) -> libvirt.virStorageVol:
        self._enter(name)
        volume = ET.Element("volume")
        ET.SubElement(volume, "name").text = self.prefix + name
        ET.SubElement(volume, "capacity", unit="bytes").text = str(size)
        ET.SubElement(volume, "allocation", unit="bytes").text = "0"
        target = ET.SubElement(volume, "target")
        ET.SubElement(target, "format", type=kind)
        ET.SubElement(ET.SubElement(target, "permissions"), "mode").text = "0600"
        if backing:
            store = ET.SubElement(volume, "backingStore")
            ET.SubElement(store, "path").text = str(backing)
            ET.SubElement(store, "format", type="qcow2")
        try:
            return self.pool.createXML(ET.tostring(volume, encoding="unicode"), 0)
        except libvirt.libvirtError as error:
            what = f"cannot create a volume in the pool {self.pool.name()} of {self.connection.uri}"
            raise host_error(error, what, code="machine.volume-failed") from error


def find_pool(connection: Connection) -> libvirt.virStoragePool:
    """The active pool "default", else the only active pool. HostError when there is no pool, or several without one of that name."""
    try:
        pools = connection.handle.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE)
    except libvirt.libvirtError as error:
        raise host_error(error, f"cannot list the storage pools of {connection.uri}", code="machine.volume-failed") from error
    named = [pool for pool in pools if pool.name() == POOL] or pools
    if len(named) != 1:
        raise HostError(
            f"{connection.uri} has no active storage pool {POOL!r}",
            hint=f"virsh -c {connection.uri} pool-create-as {POOL} dir --target /var/lib/libvirt/images",
            code="machine.no-storage-pool",
        )
    return named[0]


def delete(connection: Connection, pool: str, name: str) -> None:
    """Delete a volume. Does nothing when it does not exist."""
    try:
        found = connection.handle.storagePoolLookupByName(pool)
        found.refresh()
        found.storageVolLookupByName(name).delete()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_NO_STORAGE_VOL, libvirt.VIR_ERR_NO_STORAGE_POOL):
            raise host_error(error, f"cannot delete the volume {name}", code="machine.volume-failed") from error


def _write(_stream: libvirt.virStream, data: bytes, file: BinaryIO) -> int:
    return file.write(data)
