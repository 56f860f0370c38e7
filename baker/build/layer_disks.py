"""The directories of a build machine's disk while layers are kept, and the locks on layers that a build will make."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from baker.core.home import ensure
from baker.core.ledger import BuildLedger, Entry
from baker.core.locks import exclusive, try_exclusive
from baker.core.model import Disk
from baker.core.user_namespace import remove_tree
from baker.layers.store import LayerStore

DISK = "disk.qcow2"  # in a layer's directory


class MachineDisks:
    """The successive directories of the machine's disk. Each is in the ledger before it is created."""

    def __init__(self, build: str, ledger: BuildLedger, store: LayerStore) -> None:
        self._build, self._ledger, self._store = build, ledger, store
        self._made: dict[Path, Entry] = {}
        self._number = 0
        self._links: Path | None = None
        self.current = Path()

    def next(self) -> Path:
        """Create the directory for the machine's next overlay."""
        self._number += 1
        self.current = self._store.machine_directory(self._build, self._number)
        self._made[self.current] = self._ledger.enter("directory", path=str(self.current))
        return ensure(self.current)

    def link(self, directory: Path, name: str) -> None:
        """Let `readable` find the disk in `directory` under the layer's future `name`, by which the overlay on it refers to it. The
        directory is renamed only when the layer is complete."""
        if self._links is None:
            root = self._store.root  # beside the store's root, so that relative paths of backing files are valid
            self._links = root.with_name(f"{root.name}-{self._build}")
            self._made[self._links] = self._ledger.enter("directory", path=str(self._links))
        os.link(directory / DISK, ensure(self._links / name) / DISK)

    def readable(self, disk: Disk) -> Disk:
        """Return the same disk, at a path from which all of its backing files can be found."""
        if self._links is None:
            return disk
        top = ensure(self._links / "top") / DISK
        top.unlink(missing_ok=True)
        os.link(disk.path, top)
        return replace(disk, path=top)

    def release(self, directory: Path) -> None:
        """Forget a directory that has become a layer: the store owns it now."""
        self._ledger.strike(self._made.pop(directory))

    def rename(self, directory: Path, name: Path) -> None:
        """Rename a directory that has not become a layer to the name by which the overlay on it refers to it."""
        for path in directory.glob("memory*"):
            path.unlink(missing_ok=True)
        entry = self._made.pop(directory)
        self._made[name] = self._ledger.enter("directory", path=str(name))
        directory.rename(name)
        self._ledger.strike(entry)

    def close(self) -> None:
        """Remove the directories that have not become layers, unless the machine is kept."""
        if self._ledger.kept:
            return
        for directory, entry in self._made.items():
            remove_tree(directory)
            self._ledger.strike(entry)


class LayerClaims:
    """Locks on the keys of layers that this build will make, so that builds with the same steps make each layer once."""

    def __init__(self, store: LayerStore) -> None:
        self._directory = store.root / "locks"
        self._held: dict[str, ExitStack] = {}

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self._held)

    def wait(self, key: str, on_wait: Callable[[], None]) -> None:
        """Claim `key`. If another build has it, call `on_wait` and wait for it."""
        claim = ExitStack()
        claim.enter_context(exclusive(self._directory, f"make-{key}", on_wait=on_wait))
        self._held[key] = claim

    def claim_if_free(self, key: str) -> None:
        """Claim `key` unless another build has it."""
        if key in self._held:
            return
        claim = ExitStack()
        if claim.enter_context(try_exclusive(self._directory, f"make-{key}")):
            self._held[key] = claim

    def release(self, key: str) -> None:
        """Release `key`, if this build has it."""
        if claim := self._held.pop(key, None):
            claim.close()

    def close(self) -> None:
        for key in self.keys:
            self.release(key)
