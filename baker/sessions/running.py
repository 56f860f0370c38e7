"""Machines that somebody is in now (`bake shell`, `bake run`), as another process sees them: what they are, and a copy of their disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from baker.build.services import Services
from baker.catalog.records import ImageRecord
from baker.core import process
from baker.core.errors import HostError, NotFoundError, UsageError
from baker.core.home import Home
from baker.core.model import Disk
from baker.disks import qemuimg
from baker.machines.base import Builder, Machine, SupportsPause
from baker.machines.spec import spec_of

NAME = "shell.json"  # in the session's scratch directory
PREFIX = "shell:"
SYNC_SECONDS = 120.0


@dataclass(frozen=True)
class Shell:
    """A running throw-away machine."""

    id: str
    image: str  # id of the image that it was started from
    disk: Path  # what it writes to: an overlay on the image's disk
    virtual_size: int
    ssh: tuple[str, ...]  # the command that enters it


def note(scratch: Path, image: ImageRecord, builder: Builder, machine: Machine, ssh: Sequence[str]) -> None:
    """Let others find the machine, where its disk is on this host. `scratch` is called as the session is."""
    if not isinstance(builder, SupportsPause) or not builder.can_pause():
        return
    with builder.paused_disk(machine) as disk:
        shell = Shell(scratch.name, image.id, disk.path, disk.virtual_size or image.virtual_size, tuple(ssh))
    (scratch / NAME).write_text(json.dumps(asdict(shell), default=str))


def running(home: Home) -> list[Shell]:
    """Those that run now."""
    found = []
    for path in sorted(home.work("*").parent.glob(f"*/{NAME}")):
        try:
            value = json.loads(path.read_text())
            shell = Shell(**value | {"disk": Path(value["disk"]), "ssh": tuple(value["ssh"])})
        except (OSError, ValueError, TypeError, KeyError):
            continue  # gone meanwhile, or another version's
        if shell.disk.exists():
            found.append(shell)
    return found


def shell_of(home: Home, text: str) -> Shell:
    """The shell with this id, or whose id begins so; `shell:` before it may be left out."""
    wanted, there = text.removeprefix(PREFIX), running(home)
    fits = [shell for shell in there if shell.id.startswith(wanted)] if wanted else []
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise UsageError(f"{text} fits several shells: {', '.join(shell.id for shell in fits)}", hint="type more of it")
    known = ", ".join(shell.id for shell in there)
    raise NotFoundError(f"no shell {wanted!r} is running", hint=f"there are: {known}" if known else "bake shell IMAGE starts one")


def copy_disk(services: Services, shell: Shell, image: ImageRecord, destination: Path) -> Disk:
    """A copy of what the machine has written, taken while it stands still for a moment: as after a power cut just behind a `sync`."""
    builder = services.builder(spec_of(image.builder, services.catalog.build_of(image).shape), None)
    if not isinstance(builder, SupportsPause):
        raise HostError(f"the disks of machines of {image.builder} are not on this host")
    process.run([*shell.ssh, "sync"], timeout=SYNC_SECONDS, what="write the guest's changes to its disk")
    with builder.frozen(shell.disk):
        process.run(["cp", "--sparse=always", "--reflink=auto", shell.disk, destination], what="copy the machine's disk")
    return Disk(destination, "qcow2", qemuimg.info(destination, "qcow2").virtual_size)
