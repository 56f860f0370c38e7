"""What exists outside this process because of a build: entered on disk before it is made, struck out when it is gone.

One directory per build, held by a lock for as long as the build's process lives:

    ledger/<build id>/lock           flock(2)ed by the live process; the kernel lets go of it however the process ends
    ledger/<build id>/0001.json      {"kind": "domain", "name": "...", ...}

A directory whose lock can be taken belongs to a build that is dead: `bake sweep` gives back its entries, newest first.
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
    """One thing that exists: `kind` says who can give it back ("directory", "domain", "ec2:instance"), `details` which one."""

    path: Path
    kind: str
    details: Mapping[str, Any]


class BuildLedger:
    """The entries of one live build."""

    def __init__(self, directory: Path, build_id: str) -> None:
        self.directory = directory
        self.build_id = build_id

    def enter(self, kind: str, **details: Any) -> Entry:
        """Write an entry that survives a crash of this process and of the host. Call it before making the thing."""
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
        """Forget an entry: the thing is gone."""
        entry.path.unlink(missing_ok=True)

    def keep(self, reason: str) -> None:
        """Leave this build's things for a person to look at: the next build does not sweep them, `bake sweep` does."""
        (self.directory / KEPT).write_text(reason)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What is in it now, newest first: also what a dead process entered under the same id."""
        return tuple(_entries(self.directory))

    @property
    def kept(self) -> bool:
        return (self.directory / KEPT).exists()

    @contextmanager
    def holding(self, kind: str, **details: Any) -> Iterator[Entry]:
        """Enter; strike out at the end if the body (which makes the thing and takes it away again) left without an error
        of its own cleanup. A body that fails leaves the entry to its caller's next `sweep`, unless it struck it itself."""
        entry = self.enter(kind, **details)
        yield entry
        self.strike(entry)


@dataclass(frozen=True)
class DeadBuild:
    """A build whose process is gone but whose entries are not. Its lock is held by whoever got this value."""

    build_id: str
    entries: tuple[Entry, ...]  # newest first


class Ledger:
    """All builds' entries of one user."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def open(self, build_id: str) -> Iterator[BuildLedger]:
        """The ledger of a new build, locked until the end; removed then unless entries are left for `sweep`."""
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
        """The ids of the builds whose process is alive now."""
        return tuple(directory.name for directory in self._directories() if _is_held(directory))

    @contextmanager
    def dead(self, build_id: str) -> Iterator[DeadBuild | None]:
        """The entries of a dead build, locked while the caller gives them back; None when it is alive or gone."""
        directory = self.root / build_id
        with ExitStack() as stack:
            try:
                lock = stack.enter_context(locked(directory / LOCK, wait=False))
            except FileNotFoundError:
                lock = None  # its process ended well, or another sweep was faster
            yield DeadBuild(build_id, tuple(_entries(directory))) if lock else None
            if lock:
                _remove_if_empty(directory)

    def _directories(self) -> list[Path]:
        return sorted(path for path in self.root.glob("*") if path.is_dir()) if self.root.is_dir() else []

    def dead_builds(self, *, kept: bool = True) -> tuple[str, ...]:
        """The ids of the builds whose process is gone; without those left for a person to look at unless `kept`."""
        return tuple(d.name for d in self._directories() if (kept or not (d / KEPT).exists()) and _is_held(d) is False)


def _is_held(directory: Path) -> bool | None:
    """Whether the build's process is alive; None when it ended and took its directory with it just now."""
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
