"""What a kept machine is made of, as files in its directory:

    disk.qcow2     its overlay, from the disk or the kept machine below up to the moment when it was kept
    memory         its memory and devices as libvirt saves them; packed: memory.zst
    machine.json   what kept it (versions, processor) and its XML
    nvram.fd       its UEFI variables, if it has any
    seed.img       its NoCloud seed: the guest may have read parts of it

QEMU promises no more than that the same QEMU on the same kind of processor can take up a saved machine, so that is asked for.
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

DISK, MEMORY, PACKED, MACHINE, NVRAM, SEED = "disk.qcow2", "memory", "memory.zst", "machine.json", "nvram.fd", "seed.img"
LEVEL = "-1"  # of zstd: the fastest; more would cost a build more time than it saves in space


@dataclass(frozen=True)
class Kept:
    """machine.json."""

    made_by: Mapping[str, str]
    description: str


def made_by(connection: Connection, accelerator: str) -> dict[str, str]:
    """What has to be the same to restore a machine. An emulated processor is the same on every host."""
    processor = {"processor": cpu_model()} if accelerator == "kvm" else {}
    return {"qemu": connection.version, "libvirt": libvirt_version(), "accelerator": accelerator, **processor}


def write(directory: Path, kept: Kept, files: Path) -> None:
    """Write what goes along with disk and memory; `files` is the directory with the running machine's files."""
    for name in (NVRAM, SEED):
        if (files / name).exists():
            process.run(["cp", "--sparse=always", "--preserve=mode", files / name, directory / name], what="keep the machine's files")
    (directory / MACHINE).write_text(json.dumps({"made_by": dict(kept.made_by), "description": kept.description}))


def read(directory: Path) -> Kept:
    """LayerError when nothing whole is there."""
    try:
        found = json.loads((directory / MACHINE).read_text())
        return Kept(found["made_by"], found["description"])
    except (OSError, ValueError, KeyError) as error:
        raise LayerError(f"{directory.name} holds no kept machine: {error}") from error


def check(kept: Kept, here: Mapping[str, str]) -> None:
    """LayerError when this host is not one that can restore it."""
    other = [f"{name} {kept.made_by.get(name)!r}, here it is {value!r}" for name, value in here.items() if kept.made_by.get(name) != value]
    if other:
        raise LayerError(f"it was kept with {'; '.join(other)}")


def pack(directory: Path) -> None:
    """Compress the memory and see that everything has reached the disk."""
    tool = process.need("zstd")
    try:
        process.run([tool, "-q", LEVEL, "--rm", directory / MEMORY, "-o", directory / PACKED], what="compress the memory")
    except process.CommandError as error:
        if "No space left" in error.result.tail:
            raise full(directory) from error
        raise
    for path in [*directory.iterdir(), directory]:
        sync(path)


def unpack(directory: Path, memory: Path) -> None:
    """The memory as libvirt reads it, at `memory`. LayerError when it is damaged: zstd's own checksum tells."""
    tool = process.need("zstd")
    try:
        process.run([tool, "-q", "-d", directory / PACKED, "-o", memory], what="unpack the memory")
    except process.CommandError as error:
        if "No space left" in error.result.tail:
            raise full(memory) from error
        raise LayerError(f"its memory is damaged: {error.result.tail.rpartition(': ')[2]}") from error


def bring(directory: Path, files: Path) -> None:
    """Give a machine that is about to be restored its own copies of what it writes to or reads."""
    for name in (NVRAM, SEED):
        if (directory / name).exists():
            shutil.copy(directory / name, files / name)
