"""The files of a machine: on this host when the hypervisor can read them here, else in storage volumes of its host."""

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
    """The paths of the files on the hypervisor's host, and a function that fetches the disk."""

    disk: Path
    fetch: Callable[[], Disk]  # returns the overlay as a local qcow2 on the disk that the machine was launched from
    seed: Path
    credentials: Mapping[str, Path] = field(default_factory=dict)
    console_log: Path | None = None  # None: the console is read as a stream
    loader: Path | None = None
    nvram: Path | None = None  # without a loader, libvirt chooses the firmware and creates this file


def local_files(request: Launch, directory: Path) -> Files:
    """Create the files in `directory` on this host."""
    disk = overlay_on(request.disk, request, directory)
    loader = nvram = None
    if request.machine_spec.firmware == "uefi":
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
    """Create the machine's own disk, an overlay on `disk`. At the path `request.overlay` it may become part of a layer, so there it refers
    to `disk` by a relative path."""
    if request.overlay is None:
        return qemuimg.create_overlay(disk, directory / "disk.qcow2", size=request.machine_spec.disk_size)
    reference = os.path.relpath(disk.path, request.overlay.parent)
    return qemuimg.create_overlay(disk, request.overlay, size=request.machine_spec.disk_size, reference=reference)


def volume_files(request: Launch, directory: Path, connection: Connection, resources: Resources) -> Files:
    """Create the files as volumes of the hypervisor's host. The whole source is sent as one compact qcow2; only the overlay is fetched."""
    prefix = f"bake-{request.ledger.build_id}-{request.name}-"
    volumes = Volumes(connection, find_pool(connection), prefix, resources)
    flat = qemuimg.convert(request.disk, directory / "base.qcow2", "qcow2")
    base = volumes.upload("base.qcow2", flat.path)
    flat.path.unlink()
    size = request.machine_spec.disk_size or request.disk.virtual_size
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
        nvram=volumes.reserve("nvram.fd") if request.machine_spec.firmware == "uefi" else None,
    )
