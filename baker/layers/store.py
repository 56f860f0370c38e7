"""The layers of this host, in a directory of the cache.

    ROOT/<first 24 digits of the key>-<build id>/   one layer: layer.json, the builder's files (disk, memory), the boot's key files
    ROOT/at-<build id>-<number>/                    the disk that a running machine writes to, in the ledger of its build
    ROOT/gone-<...>/                                a layer that is being removed
    ROOT/locks/                                     lock files: which process makes or uses a layer

A layer is named by its content key and its build: the same key made again (`--no-cache`, `max_age`) is another layer beside the
first, because the disks above a layer depend on its very bytes. Disks refer to each other by paths relative to themselves.
A layer comes into being by the rename of its finished directory, and goes by another: whole or not there, whatever kills the process.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from baker.core.disk_space import host_error
from baker.core.errors import BusyError
from baker.core.home import ensure, sync
from baker.core.locks import locked
from baker.core.model import Identity

FORMAT = 1  # of layer.json and of what lies beside it: other formats are not seen
RECORD = "layer.json"
USED = "used"  # an empty file: its time is the last use
BROKEN = "broken"  # holds why a layer could not be restored: nobody tries again
KEY_DIGITS = 24
KEY_FILES = ("client_key", "client_key.pub", "host_key", "host_key.pub")


@dataclass(frozen=True)
class LayerRecord:
    """What is known of a layer. Times are seconds since the epoch."""

    key: str  # content key of its step; of layer 0: the plan's root key
    parent: str | None  # directory name of the layer below
    step: int  # 0: booted, nothing done
    name: str  # of the step
    template: str  # name of the template whose build made it
    build: str
    made: float
    work: float  # seconds that going on from here instead of from `parent` saves
    cost: float  # seconds for which the machine stood still to be kept
    ran: Mapping[str, float] = field(default_factory=dict)  # key of each step in it -> when that ran
    blobs: tuple[str, ...] = ()  # of the source's disk: they must stay
    hostname: str = ""
    username: str = "root"
    builder: str = "libvirt"  # whose machine it is
    format: int = FORMAT


@dataclass(frozen=True)
class Layer:
    """A layer that is there."""

    directory: Path
    record: LayerRecord

    @property
    def key(self) -> str:
        return self.record.key

    @property
    def id(self) -> str:
        return self.directory.name

    def identity(self, scratch: Path) -> Identity:
        """Copies in `scratch` of the keys with which its machine was booted: private files, as good as the machine for nothing else."""
        for name in KEY_FILES:
            shutil.copy(self.directory / name, scratch / name)
        return Identity(self.record.hostname, self.record.username, scratch / "client_key", scratch / "host_key")

    @cached_property
    def size(self) -> int:
        """Bytes that it takes on the disk."""
        return allocated(self.directory)

    @property
    def used(self) -> float:
        """When it was last gone on from; when it was made, if never."""
        try:
            return (self.directory / USED).stat().st_mtime
        except OSError:
            return self.record.made

    @property
    def broken(self) -> str:
        try:
            return (self.directory / BROKEN).read_text()
        except OSError:
            return ""


class LayerStore:
    """All layers of one user on this host."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # -- finding ------------------------------------------------------------------------------------------------------

    def all(self) -> list[Layer]:
        """Every layer, in the order in which they were made."""
        found = (self._load(path) for path in self.root.glob("*-*") if not path.name.startswith(("at-", "gone-")))
        return sorted((layer for layer in found if layer), key=lambda layer: layer.record.made)

    def find(self, key: str) -> Layer | None:
        """The newest layer with this key that is not known to be broken."""
        found = [self._load(path) for path in self.root.glob(f"{key[:KEY_DIGITS]}-*")]
        whole = [layer for layer in found if layer and layer.key == key and not layer.broken and self._stands(layer)]
        return max(whole, key=lambda layer: layer.record.made, default=None)

    def get(self, name: str) -> Layer | None:
        return self._load(self.root / name)

    def _stands(self, layer: Layer) -> bool:
        """Whether every layer below it is there."""
        below = layer.record.parent
        while below:
            parent = self._load(self.root / below)
            if parent is None:
                return False
            below = parent.record.parent
        return True

    def _load(self, directory: Path) -> Layer | None:
        try:
            value: dict[str, Any] = json.loads((directory / RECORD).read_text())
            value["blobs"] = tuple(value["blobs"])
            return Layer(directory, LayerRecord(**value)) if value.get("format") == FORMAT else None
        except (OSError, ValueError, TypeError, KeyError):
            return None  # none, half removed, or another version's

    def blobs(self) -> set[str]:
        """The blobs that layers refer to."""
        return {blob for layer in self.all() for blob in layer.record.blobs}

    # -- making -------------------------------------------------------------------------------------------------------

    def place(self, build: str, number: int) -> Path:
        """Where the disk of a running machine goes. The caller enters it in its ledger before it is made."""
        return self.root / f"at-{build}-{number}"

    def name(self, key: str, build: str) -> str:
        """The directory name that the layer `key` of a build will have."""
        return f"{key[:KEY_DIGITS]}-{build}"

    def commit(self, place: Path, record: LayerRecord) -> Layer:
        """Make a layer of a finished directory: the moment from which it is there. HostError when the disk is full."""
        try:
            with (place / RECORD).open("w") as file:
                json.dump(asdict(record), file)
                file.flush()
                os.fsync(file.fileno())
            final = self.root / self.name(record.key, record.build)
            place.rename(final)
            sync(self.root)
        except OSError as error:
            raise host_error(error, self.root) from error
        return Layer(final, record)

    # -- using --------------------------------------------------------------------------------------------------------

    @contextmanager
    def using(self, layer: Layer) -> Iterator[bool]:
        """Keep the layer, and those below it, from being removed. Yields False when it has been removed already."""
        with locked(self._lock(layer.id), shared=True):
            there = self._load(layer.directory) is not None
            if there:
                (layer.directory / USED).touch()
            yield there

    def mark_broken(self, layer: Layer, reason: str) -> None:
        """Nobody goes on from this layer again."""
        try:
            (layer.directory / BROKEN).write_text(reason)
        except OSError:
            pass  # a full or read-only disk: it is tried again, and falls back again

    # -- removing -----------------------------------------------------------------------------------------------------

    def remove(self, layer: Layer) -> None:
        """Remove a layer. BusyError while a build uses it or another layer is built on it."""
        with locked(self._lock(layer.id), wait=False) as alone:
            if alone is None:
                raise BusyError(f"layer {layer.id} is in use by a build", code="layer.in-use")
            if any(other.record.parent == layer.id for other in self.all()):
                raise BusyError(f"another layer is built on layer {layer.id}", code="layer.has-children")
            gone = self.root / f"gone-{layer.id}"
            try:
                layer.directory.rename(gone)
            except FileNotFoundError:
                return
            shutil.rmtree(gone, ignore_errors=True)
            self._lock(layer.id).unlink(missing_ok=True)

    def clean(self) -> int:
        """Remove what interrupted removals left behind; the number of layers."""
        left = list(self.root.glob("gone-*"))
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        return len(left)

    def _lock(self, name: str) -> Path:
        return ensure(self.root / "locks") / f"{name}.lock"


def with_key_files(directory: Path, identity: Identity) -> None:
    """Put the boot's keys beside the machine that they open."""
    for private in (identity.client_key, identity.host_key):
        for source in (private, private.with_suffix(".pub")):
            shutil.copy(source, directory / source.name)


def allocated(directory: Path) -> int:
    """Bytes that the files below a directory take on the disk, holes left out."""
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except OSError:
            continue
    return total
