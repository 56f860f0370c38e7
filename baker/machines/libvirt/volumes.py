"""Storage volumes: how files reach a hypervisor that cannot read this user's (qemu:///system, another host), and come back.

Everything goes over the libvirt connection itself, in streams: no shared directory and no second way in is needed.
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

VOLUME = "libvirt:volume"  # the ledger's word
POOL = "default"
CHUNK = 1 << 18


@dataclass(frozen=True)
class Volumes:
    """The volumes of one machine, in one pool. Each is in the ledger before it is made."""

    connection: Connection
    pool: libvirt.virStoragePool
    prefix: str
    resources: Resources

    def upload(self, name: str, source: Path) -> Path:
        """A volume with the bytes of `source`; its path on the hypervisor's host."""
        volume = self._create(name, source.stat().st_size, "raw")
        stream = self.connection.handle.newStream()
        try:
            volume.upload(stream, 0, source.stat().st_size)
            with source.open("rb") as file:
                stream.sendAll(lambda _stream, size, _opaque: file.read(min(size, CHUNK)), None)
            stream.finish()
            return Path(volume.path())
        except libvirt.libvirtError as error:
            raise host_error(error, f"cannot send {source.name} to {self.connection.uri}") from error

    def overlay(self, name: str, backing: Path, size: int) -> Path:
        """A qcow2 volume of `size` bytes that reads as the qcow2 volume `backing` until it is written to."""
        return Path(self._create(name, size, "qcow2", backing).path())

    def reserve(self, name: str) -> Path:
        """The path of a file that libvirt itself will make in the pool, to be deleted with the rest."""
        target = ET.fromstring(self.pool.XMLDesc()).findtext("target/path")  # noqa: S314 - the hypervisor's own answer
        self._enter(name)
        return Path(target or "/") / (self.prefix + name)

    def download(self, name: str, destination: Path) -> None:
        """The bytes of a volume as a local file."""
        stream = self.connection.handle.newStream()
        try:
            volume = self.pool.storageVolLookupByName(self.prefix + name)
            with destination.open("wb") as file:
                volume.download(stream, 0, 0)
                stream.recvAll(_write, file)
                stream.finish()
        except libvirt.libvirtError as error:
            raise host_error(error, f"cannot fetch the disk from {self.connection.uri}") from error

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
            raise host_error(error, f"cannot make a volume in the pool {self.pool.name()} of {self.connection.uri}") from error


def find_pool(connection: Connection) -> libvirt.virStoragePool:
    """The active pool "default", else the only active pool. HostError when there is none to choose."""
    try:
        pools = connection.handle.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE)
    except libvirt.libvirtError as error:
        raise host_error(error, f"cannot list the storage pools of {connection.uri}") from error
    named = [pool for pool in pools if pool.name() == POOL] or pools
    if len(named) != 1:
        raise HostError(
            f"{connection.uri} has no active storage pool {POOL!r}",
            hint=f"virsh -c {connection.uri} pool-create-as {POOL} dir --target /var/lib/libvirt/images",
        )
    return named[0]


def delete(connection: Connection, pool: str, name: str) -> None:
    """Delete a volume. Gone already counts."""
    try:
        found = connection.handle.storagePoolLookupByName(pool)
        found.refresh()
        found.storageVolLookupByName(name).delete()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_NO_STORAGE_VOL, libvirt.VIR_ERR_NO_STORAGE_POOL):
            raise host_error(error, f"cannot delete the volume {name}") from error


def _write(_stream: libvirt.virStream, data: bytes, file: BinaryIO) -> int:
    return file.write(data)
