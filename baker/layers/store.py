"""The layers of this host, in a directory of the cache.

    ROOT/<first 24 digits of the key>-<build id>/   one layer: layer.json, the builder's files (disk, memory), the SSH keys
    ROOT/at-<build id>-<number>/                    the disk that a running machine writes to, in the ledger of its build
    ROOT/gone-<...>/                                a layer that is being removed
    ROOT/locks/                                     lock files: which process makes or uses a layer

The name of a layer has its content key and its build. When a key is built again (`--no-cache`, `max_age`), the new layer is beside the
old one, because the disks above a layer depend on its exact bytes. Disks refer to each other by paths relative to themselves.
A layer is created by the rename of its finished directory, and removed by another rename. So it is complete or absent, whenever the
process is killed.
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

FORMAT = 1  # of layer.json and the files beside it: layers of other formats are ignored
RECORD = "layer.json"
USED = "used"  # an empty file: its modification time is the last use of the layer
BROKEN = "broken"  # a file with the reason why the layer could not be restored: no build tries it again
KEY_DIGITS = 24
KEY_FILES = ("client_key", "client_key.pub", "host_key", "host_key.pub")


@dataclass(frozen=True)
class LayerRecord:
    """The content of layer.json. Times are seconds since the epoch."""

    key: str  # content key of its step; of layer 0: the plan's root key
    parent: str | None  # directory name of the layer below
    step: int  # number of its step; 0: the machine has booted, and no step has run
    name: str  # name of its step
    template: str  # name of the template whose build made it
    build: str
    made: float
    work: float  # seconds that a start from this layer instead of from `parent` saves
    cost: float  # seconds for which the machine was paused to make it
    ran: Mapping[str, float] = field(default_factory=dict)  # key of each step in it -> when that step ran
    blobs: tuple[str, ...] = ()  # blobs of the source's disk, which the store must keep
    hostname: str = ""
    username: str = "root"
    builder: str = "libvirt"  # kind of the builder that can restore it
    format: int = FORMAT


@dataclass(frozen=True)
class Layer:
    """An existing layer."""

    directory: Path
    record: LayerRecord

    @property
    def key(self) -> str:
        return self.record.key

    @property
    def id(self) -> str:
        return self.directory.name

    def identity(self, scratch: Path) -> Identity:
        """Copy the keys with which its machine was booted to `scratch`."""
        for name in KEY_FILES:
            shutil.copy(self.directory / name, scratch / name)
        return Identity(self.record.hostname, self.record.username, scratch / "client_key", scratch / "host_key")

    @cached_property
    def size(self) -> int:
        """The space on disk that it takes, in bytes."""
        return allocated(self.directory)

    @property
    def used(self) -> float:
        """When a build last started from it, else when it was made. Seconds since the epoch."""
        try:
            return (self.directory / USED).stat().st_mtime
        except OSError:
            return self.record.made

    @property
    def broken(self) -> str:
        """Why the layer could not be restored; "" when that is not known to fail."""
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
        """All layers, oldest first."""
        found = (self._load(path) for path in self.root.glob("*-*") if not path.name.startswith(("at-", "gone-")))
        return sorted((layer for layer in found if layer), key=lambda layer: layer.record.made)

    def find(self, key: str) -> Layer | None:
        """The newest layer with this key that has all layers below it and is not known to be broken."""
        found = [self._load(path) for path in self.root.glob(f"{key[:KEY_DIGITS]}-*")]
        usable = [layer for layer in found if layer and layer.key == key and not layer.broken and self._has_ancestors(layer)]
        return max(usable, key=lambda layer: layer.record.made, default=None)

    def get(self, name: str) -> Layer | None:
        """The layer with this directory name."""
        return self._load(self.root / name)

    def _has_ancestors(self, layer: Layer) -> bool:
        """Whether every layer below it exists."""
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
            return None  # no layer, a partly removed one, or one of another version

    def blobs(self) -> set[str]:
        """The digests of the blobs that layers refer to."""
        return {blob for layer in self.all() for blob in layer.record.blobs}

    # -- making -------------------------------------------------------------------------------------------------------

    def machine_directory(self, build: str, number: int) -> Path:
        """The directory for the disk of a running machine. The caller enters it in its ledger before creating it."""
        return self.root / f"at-{build}-{number}"

    def name(self, key: str, build: str) -> str:
        """The directory name of the layer with this key that a build makes."""
        return f"{key[:KEY_DIGITS]}-{build}"

    def commit(self, directory: Path, record: LayerRecord) -> Layer:
        """Turn a finished directory into a layer, atomically. HostError when the file system is full."""
        try:
            with (directory / RECORD).open("w") as file:
                json.dump(asdict(record), file)
                file.flush()
                os.fsync(file.fileno())
            final = self.root / self.name(record.key, record.build)
            directory.rename(final)
            sync(self.root)
        except OSError as error:
            raise host_error(error, self.root) from error
        return Layer(final, record)

    # -- using --------------------------------------------------------------------------------------------------------

    @contextmanager
    def using(self, layer: Layer) -> Iterator[bool]:
        """Protect the layer, and those below it, from removal. Yields False when it was removed before."""
        with locked(self._lock(layer.id), shared=True):
            exists = self._load(layer.directory) is not None
            if exists:
                (layer.directory / USED).touch()
            yield exists

    def mark_broken(self, layer: Layer, reason: str) -> None:
        """Mark a layer that could not be restored, so that no build tries it again."""
        try:
            (layer.directory / BROKEN).write_text(reason)
        except OSError:
            pass  # a full or read-only file system: the next build tries the layer again and falls back again

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
        """Finish interrupted removals. Returns the number of layers."""
        remains = list(self.root.glob("gone-*"))
        for path in remains:
            shutil.rmtree(path, ignore_errors=True)
        return len(remains)

    def _lock(self, name: str) -> Path:
        return ensure(self.root / "locks") / f"{name}.lock"


def copy_key_files(directory: Path, identity: Identity) -> None:
    """Copy the keys of the machine's identity to the directory of its snapshot."""
    for private in (identity.client_key, identity.host_key):
        for source in (private, private.with_suffix(".pub")):
            shutil.copy(source, directory / source.name)


def allocated(directory: Path) -> int:
    """The space on disk that the files below a directory take, in bytes, without holes."""
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except OSError:
            continue
    return total
