"""Finds the running ephemeral machines of other processes (`bake shell`, `bake run`), and copies their disks."""

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
    """A running ephemeral machine."""

    id: str
    image: str  # id of the image that it was started from
    disk: Path  # the overlay on the image's disk, which has the machine's writes
    virtual_size: int
    ssh: tuple[str, ...]  # the command that logs in to it


def write_shell(scratch: Path, image: ImageRecord, builder: Builder, machine: Machine, ssh: Sequence[str]) -> None:
    """Make the machine known to other processes, if its disk is on this host. The name of `scratch` is the id of the session."""
    if not isinstance(builder, SupportsPause) or not builder.can_pause():
        return
    with builder.paused_disk(machine) as disk:
        shell = Shell(scratch.name, image.id, disk.path, disk.virtual_size or image.virtual_size, tuple(ssh))
    (scratch / NAME).write_text(json.dumps(asdict(shell), default=str))


def running_shells(home: Home) -> list[Shell]:
    """The running shells of all processes."""
    found = []
    for path in sorted(home.work("*").parent.glob(f"*/{NAME}")):
        try:
            value = json.loads(path.read_text())
            shell = Shell(**value | {"disk": Path(value["disk"]), "ssh": tuple(value["ssh"])})
        except (OSError, ValueError, TypeError, KeyError):
            continue  # the shell ended meanwhile, or another version of bake wrote the file
        if shell.disk.exists():
            found.append(shell)
    return found


def shell_of(home: Home, text: str) -> Shell:
    """Find the shell whose id is, or begins with, `text`, with or without `shell:`. UsageError when there are several."""
    wanted, there = text.removeprefix(PREFIX), running_shells(home)
    fits = [shell for shell in there if shell.id.startswith(wanted)] if wanted else []
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise UsageError(
            f"{text} matches several shells: {', '.join(shell.id for shell in fits)}",
            hint="type more digits of the id",
            code="session.ambiguous-shell",
        )
    known = ", ".join(shell.id for shell in there)
    raise NotFoundError(
        f"no shell {wanted!r} is running",
        hint=f"running shells: {known}" if known else "bake shell IMAGE starts one",
        code="session.no-such-shell",
    )


def copy_disk(services: Services, shell: Shell, image: ImageRecord, destination: Path) -> Disk:
    """Copy the machine's overlay while the machine is paused. The copy is in the state of a power failure after a `sync`."""
    builder = services.builder(spec_of(image.builder, services.catalog.build_of(image).shape), None)
    if not isinstance(builder, SupportsPause):
        raise HostError(f"the disks of machines of {image.builder} are not on this host", code="session.disk-elsewhere")
    process.run([*shell.ssh, "sync"], timeout=SYNC_SECONDS, what="write the guest's changes to its disk")
    with builder.paused_writer(shell.disk):
        process.run(["cp", "--sparse=always", "--reflink=auto", shell.disk, destination], what="copy the machine's disk")
    return Disk(destination, "qcow2", qemuimg.info(destination, "qcow2").virtual_size)
