"""Where the files of a machine are: beside this process where the hypervisor shares them, in storage volumes where it does not."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from baker.core.model import Disk
from baker.core.resources import Resources
from baker.disks import qemuimg
from baker.machines.base import Launch
from baker.machines.identity import write_credentials, write_seed
from baker.machines.libvirt import firmware
from baker.machines.libvirt.connection import Connection
from baker.machines.libvirt.volumes import Volumes, find_pool


@dataclass(frozen=True)
class Files:
    """The paths on the hypervisor's host, and how the disk comes back to this one."""

    disk: Path
    fetch: Callable[[], Disk]  # the overlay as a local qcow2 on the disk it was launched from
    seed: Path
    credentials: Mapping[str, Path] = field(default_factory=dict)
    console_log: Path | None = None  # None: the console comes as a stream
    loader: Path | None = None
    nvram: Path | None = None  # without a loader: libvirt chooses the firmware and makes this file


def local_files(request: Launch, directory: Path) -> Files:
    """Files of this host in `directory`."""
    disk = overlay_on(request.disk, request, directory)
    loader = nvram = None
    if request.shape.firmware == "uefi":
        loader, variables = firmware.find()
        nvram = firmware.copy_variables(variables, directory / "nvram.fd")
    return Files(
        disk=disk.path,
        fetch=lambda: disk,
        seed=write_seed(request.identity, directory / "seed.img"),
        credentials=write_credentials(request.identity, directory),
        console_log=directory / "console.log",
        loader=loader,
        nvram=nvram,
    )


def overlay_on(disk: Disk, request: Launch, directory: Path) -> Disk:
    """The machine's own disk, on `disk`. Where the caller says where it goes it may be kept: it refers to `disk` by a relative path."""
    if request.overlay is None:
        return qemuimg.create_overlay(disk, directory / "disk.qcow2", size=request.shape.disk_size)
    reference = os.path.relpath(disk.path, request.overlay.parent)
    return qemuimg.create_overlay(disk, request.overlay, size=request.shape.disk_size, reference=reference)


def volume_files(request: Launch, directory: Path, connection: Connection, resources: Resources) -> Files:
    """Volumes of the hypervisor's host. The source goes over whole, as one compact qcow2; what comes back is the overlay alone."""
    prefix = f"bake-{request.ledger.build_id}-{request.name}-"
    volumes = Volumes(connection, find_pool(connection), prefix, resources)
    flat = qemuimg.convert(request.disk, directory / "base.qcow2", "qcow2")
    base = volumes.upload("base.qcow2", flat.path)
    flat.path.unlink()
    size = request.shape.disk_size or request.disk.virtual_size
    secrets = write_credentials(request.identity, directory)

    def fetch() -> Disk:
        path = directory / "disk.qcow2"
        volumes.download("disk.qcow2", path)
        qemuimg.rebase(path, str(request.disk.path.absolute()), request.disk.format)
        return Disk(path, "qcow2", size)

    return Files(
        disk=volumes.overlay("disk.qcow2", base, size),
        fetch=fetch,
        seed=volumes.upload("seed.img", write_seed(request.identity, directory / "seed.img")),
        credentials={name: volumes.upload(name, path) for name, path in secrets.items()},
        nvram=volumes.reserve("nvram.fd") if request.shape.firmware == "uefi" else None,
    )
