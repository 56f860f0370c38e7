"""The files of a machine's snapshot, in its directory:

    disk.qcow2     the machine's overlay at that time, on the source's disk or on the disk of the snapshot below
    memory         its memory and devices as libvirt saves them; memory.zst when compressed
    machine.json   the versions and the processor that made it, and the domain XML
    nvram.fd       its UEFI variables, if it has any
    seed.img       its NoCloud seed, parts of which may be in the guest's memory

A snapshot is restored only with the same versions and, under KVM, on the same processor model, because QEMU guarantees no more.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from baker.core import process
from baker.core.disk_space import full
from baker.core.errors import LayerError
from baker.core.home import sync
from baker.core.host_facts import cpu_model
from baker.machines.libvirt.connection import Connection, libvirt_version

DISK, MEMORY, COMPRESSED, MACHINE, NVRAM, SEED = "disk.qcow2", "memory", "memory.zst", "machine.json", "nvram.fd", "seed.img"
LEVEL = "-1"  # of zstd, the fastest: a higher level costs a build too much time for the space that it saves


@dataclass(frozen=True)
class SnapshotRecord:
    """The content of machine.json. `made_by`: see the function; `description`: the domain XML."""

    made_by: Mapping[str, str]
    description: str


def made_by(connection: Connection, accelerator: str) -> dict[str, str]:
    """The versions, and under KVM the processor, that must be the same to restore a machine. Under TCG the host's does not matter."""
    processor = {"processor": cpu_model()} if accelerator == "kvm" else {}
    return {"qemu": connection.version, "libvirt": libvirt_version(), "accelerator": accelerator, **processor}


def write(directory: Path, record: SnapshotRecord, files: Path) -> None:
    """Write the files other than disk and memory. `files`: the directory of the running machine's files."""
    for name in (NVRAM, SEED):
        if (files / name).exists():
            process.run(["cp", "--sparse=always", "--preserve=mode", files / name, directory / name], what="copy the machine's files")
    (directory / MACHINE).write_text(json.dumps({"made_by": dict(record.made_by), "description": record.description}))


def read(directory: Path) -> SnapshotRecord:
    """Read machine.json. LayerError when it is missing or invalid."""
    try:
        found = json.loads((directory / MACHINE).read_text())
        return SnapshotRecord(found["made_by"], found["description"])
    except (OSError, ValueError, KeyError) as error:
        raise LayerError(f"{directory.name} has no complete snapshot: {error}", code="layer.damaged") from error


def check(record: SnapshotRecord, here: Mapping[str, str]) -> None:
    """Raise LayerError unless `here`, what `made_by` returns on this host, is the same as when the snapshot was made."""
    made_by = record.made_by
    other = [f"{name} {made_by.get(name)!r}, but this host has {value!r}" for name, value in here.items() if made_by.get(name) != value]
    if other:
        raise LayerError(f"it was made with {'; '.join(other)}", code="layer.other-host")


def compress(directory: Path) -> None:
    """Compress the memory, and write all files to the disk. HostError when the file system is full."""
    tool = process.need("zstd")
    try:
        process.run([tool, "-q", LEVEL, "--rm", directory / MEMORY, "-o", directory / COMPRESSED], what="compress the memory")
    except process.CommandError as error:
        if "No space left" in error.result.tail:
            raise full(directory) from error
        raise
    for path in [*directory.iterdir(), directory]:
        sync(path)


def decompress_memory(directory: Path, memory: Path) -> None:
    """Decompress the memory to `memory`. LayerError when it is damaged, by zstd's checksum; HostError when the file system is full."""
    tool = process.need("zstd")
    try:
        process.run([tool, "-q", "-d", directory / COMPRESSED, "-o", memory], what="decompress the memory")
    except process.CommandError as error:
        if "No space left" in error.result.tail:
            raise full(memory) from error
        raise LayerError(f"its memory is damaged: {error.result.tail.rpartition(': ')[2]}", code="layer.damaged") from error


def copy_to(directory: Path, files: Path) -> None:
    """Copy the UEFI variables and the seed of a snapshot to the directory of a machine that is restored from it."""
    for name in (NVRAM, SEED):
        if (directory / name).exists():
            shutil.copy(directory / name, files / name)
