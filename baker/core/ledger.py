"""The ledger: the resources outside of this process that a build has created.

A resource is entered on disk before it is created, and struck out after it was removed. There is one directory per build:

    ledger/<build id>/lock           held by the process of the build while it runs; see baker.core.locks
    ledger/<build id>/0001.json      {"kind": "domain", "name": "...", ...}

A directory whose lock is free belongs to a build whose process is dead: `bake sweep` deletes its resources, newest first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baker.core.errors import BusyError
from baker.core.home import ensure, sync
from baker.core.locks import locked

KEPT = "kept"
LOCK = "lock"


@dataclass(frozen=True)
class Entry:
    """One resource. `kind` ("directory", "domain", "ec2:instance") says what can delete it, `details` identify it."""

    path: Path
    kind: str
    details: Mapping[str, Any]


class BuildLedger:
    """The entries of one live build."""

    def __init__(self, directory: Path, build_id: str) -> None:
        self.directory = directory
        self.build_id = build_id

    def enter(self, kind: str, **details: Any) -> Entry:
        """Write an entry that survives a crash of this process or of the host. Call this before creating the resource."""
        number = 1 + max((int(path.stem) for path in self.directory.glob("[0-9]*.json")), default=0)
        path = self.directory / f"{number:04d}.json"
        temporary = path.with_suffix(".tmp")
        with temporary.open("w") as file:
            json.dump({"kind": kind, **details}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        sync(self.directory)
        return Entry(path, kind, details)

    def strike(self, entry: Entry) -> None:
        """Remove an entry whose resource no longer exists."""
        entry.path.unlink(missing_ok=True)

    def keep(self, reason: str) -> None:
        """Keep this build's resources for a person to inspect: only `bake sweep --kept` deletes them."""
        (self.directory / KEPT).write_text(reason)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries, newest first, including those of an earlier process of the same build that was killed."""
        return tuple(_entries(self.directory))

    @property
    def kept(self) -> bool:
        """Whether `keep` was called."""
        return (self.directory / KEPT).exists()

    @contextmanager
    def holding(self, kind: str, **details: Any) -> Iterator[Entry]:
        """Enter a resource that the body creates and deletes. After an error the entry stays in the ledger, for `bake sweep`."""
        entry = self.enter(kind, **details)
        yield entry
        self.strike(entry)


@dataclass(frozen=True)
class DeadBuild:
    """A build whose process has ended. The caller of `Ledger.dead` holds its lock."""

    build_id: str
    entries: tuple[Entry, ...]  # newest first


class Ledger:
    """The entries of all builds of one user on this host."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def open(self, build_id: str) -> Iterator[BuildLedger]:
        """The ledger of a build, locked until the context ends, and then removed unless it has entries. BusyError when it is locked."""
        directory = ensure(self.root / build_id)
        with locked(directory / LOCK, wait=False) as lock:
            if lock is None:
                raise BusyError(f"the build {build_id} is running in another process", code="build.running")
            ledger = BuildLedger(directory, build_id)
            try:
                yield ledger
            finally:
                _remove_if_empty(directory)

    def live(self) -> tuple[str, ...]:
        """The ids of the builds whose process is running."""
        return tuple(directory.name for directory in self._directories() if _is_held(directory))

    @contextmanager
    def dead(self, build_id: str) -> Iterator[DeadBuild | None]:
        """The entries of a build whose process has ended, locked while the caller deletes their resources. None when the process is
        running, or the directory no longer exists."""
        directory = self.root / build_id
        with ExitStack() as stack:
            try:
                lock = stack.enter_context(locked(directory / LOCK, wait=False))
            except FileNotFoundError:
                lock = None  # the process has just removed it, or another sweep has
            yield DeadBuild(build_id, tuple(_entries(directory))) if lock else None
            if lock:
                _remove_if_empty(directory)

    def _directories(self) -> list[Path]:
        return sorted(path for path in self.root.glob("*") if path.is_dir()) if self.root.is_dir() else []

    def dead_builds(self, *, kept: bool = True) -> tuple[str, ...]:
        """The ids of the builds whose process has ended. Without `kept`, those that are kept for a person to inspect are left out."""
        return tuple(d.name for d in self._directories() if (kept or not (d / KEPT).exists()) and _is_held(d) is False)


def _is_held(directory: Path) -> bool | None:
    """Whether the build's process is running; None when it has just ended and removed the directory."""
    try:
        with locked(directory / LOCK, wait=False) as lock:
            return lock is None
    except FileNotFoundError:
        return None


def _entries(directory: Path) -> Iterator[Entry]:
    for path in sorted(directory.glob("[0-9]*.json"), reverse=True):
        details = json.loads(path.read_text())
        yield Entry(path, details.pop("kind"), details)


def _remove_if_empty(directory: Path) -> None:
    if not any(directory.glob("[0-9]*.json")):
        for path in directory.iterdir():
            path.unlink(missing_ok=True)
        directory.rmdir()
