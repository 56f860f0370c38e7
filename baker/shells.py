"""Machines that somebody is in now (`bake shell`, `bake run`), as another process sees them: what they are, and a copy of their disk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from baker import process
from baker.builders.base import Builder, Machine, Still
from baker.builders.spec import spec_of
from baker.catalog.records import ImageRecord
from baker.disks import qemuimg
from baker.errors import HostError, NotFoundError, UsageError
from baker.explain import sides
from baker.explain.diff import Tree
from baker.job import World
from baker.layers.find import find
from baker.layers.store import LayerStore
from baker.model import Disk
from baker.paths import Home

NAME = "shell.json"  # in the session's scratch directory
PREFIX, LAYER = "shell:", "layer:"
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
    if not isinstance(builder, Still) or not builder.stills():
        return
    with builder.still(machine) as disk:
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


def copy_disk(world: World, shell: Shell, image: ImageRecord, destination: Path) -> Disk:
    """A copy of what the machine has written, taken while it stands still for a moment: as after a power cut just behind a `sync`."""
    builder = world.builder(spec_of(image.builder, {}), None)
    if not isinstance(builder, Still):
        raise HostError(f"the disks of machines of {image.builder} are not on this host")
    process.run([*shell.ssh, "sync"], timeout=SYNC_SECONDS, what="write the guest's changes to its disk")
    with builder.frozen(shell.disk):
        process.run(["cp", "--sparse=always", "--reflink=auto", shell.disk, destination], what="copy the machine's disk")
    return Disk(destination, "qcow2", qemuimg.info(destination, "qcow2").virtual_size)


@contextmanager
def side(world: World, text: str) -> Iterator[Tree]:
    """What `bake diff` compares: `shell:ID`, `layer:NAME@STEP`, an image, or NAME@STEP where no image is called so."""
    from baker.throwaway import session

    if text.startswith(PREFIX):
        shell = shell_of(world.home, text)
        image = world.catalog.image(shell.image)
        with session(world) as (_, scratch, _):
            disk = copy_disk(world, shell, image, scratch / "copy.qcow2")
            with sides.of_disk(f"{PREFIX}{shell.id} ({image.name}@{image.version})", disk, scratch) as tree:
                yield tree
        return
    if not text.startswith(LAYER):
        try:
            image = world.catalog.resolve(text)
        except NotFoundError as error:
            if "@" not in text:
                raise
            try:
                find(world.catalog, LayerStore(world.home.layers), text)
            except NotFoundError:
                raise error from None
        else:
            with sides.of_image(world.store, image, world.catalog.build_of(image)) as tree:
                yield tree
            return
    with _layer(world, text.removeprefix(LAYER)) as tree:
        yield tree


@contextmanager
def _layer(world: World, reference: str) -> Iterator[Tree]:
    store = LayerStore(world.home.layers)
    layer, _ = find(world.catalog, store, reference)
    with store.using(layer) as there:
        if not there:
            raise NotFoundError(f"the layer {layer.id} has just been removed")
        disk = layer.directory / "disk.qcow2"
        title = f"{layer.record.template} after step {layer.record.step} ({layer.record.name})"
        with sides.of_disk(title, Disk(disk, "qcow2", qemuimg.info(disk, "qcow2").virtual_size)) as tree:
            yield tree
