"""The seam to who may do something now. A lease is held by one owner alone, or shared by several.

The implementation here is a lock file of this host. Its leases need no expiry, because the kernel releases them with the process. One for
several hosts lets a lease expire, and what the lease protects refuses a `token` that is smaller than one it has seen.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Protocol

from baker.core import host_facts
from baker.core.home import ensure
from baker.core.locks import locked


@dataclass(frozen=True)
class Lease:
    """A lease that is held. `owner` names the holder to a person; of two holders of one name the later has the greater `token`."""

    name: str
    owner: str
    token: int


class Leases(Protocol):
    """Leases by name: a relative path such as "releases/web", unique among everybody who shares the catalog and the store."""

    def exclusive(self, name: str, on_wait: Callable[[], None] | None = None) -> AbstractContextManager[Lease]:
        """Hold a lease alone. Waits for its holders; `on_wait` is called once before that."""

    def try_exclusive(self, name: str) -> AbstractContextManager[Lease | None]:
        """Hold a lease alone, or yield None at once while somebody holds it."""

    def shared(self, name: str) -> AbstractContextManager[Lease]:
        """Hold a lease together with others that share it. Waits for an owner that holds it alone."""

    def holder(self, name: str) -> str:
        """Who took the lease alone last, for a message about a lease that is held; "another process" when that is unknown."""


class FileLeases:
    """Leases among the processes of this host: the lock file `root`/NAME.lock, with the last exclusive lease in it as JSON."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def exclusive(self, name: str, on_wait: Callable[[], None] | None = None) -> Iterator[Lease]:
        with locked(self._file(name), on_wait=on_wait) as file:
            yield _noted(_lease(name), file)

    @contextmanager
    def try_exclusive(self, name: str) -> Iterator[Lease | None]:
        with locked(self._file(name), wait=False) as file:
            yield _noted(_lease(name), file) if file else None

    @contextmanager
    def shared(self, name: str) -> Iterator[Lease]:
        with locked(self._file(name), shared=True):
            yield _lease(name)

    def holder(self, name: str) -> str:
        try:
            return str(json.loads(self._file(name).read_text())["owner"])
        except (OSError, ValueError, TypeError, KeyError):
            return "another process"  # of a version that writes no owner, or the disk was full

    def _file(self, name: str) -> Path:
        path = self.root / f"{name}.lock"
        ensure(path.parent)
        return path


def _lease(name: str) -> Lease:
    return Lease(name, f"{host_facts.who()}, process {os.getpid()}", time.time_ns())


def _noted(lease: Lease, file: IO[str] | None) -> Lease:
    """The lease, written to its lock file. The lock holds without that, so a full disk, which `bake gc` is to relieve, is no error."""
    if file is not None:
        try:
            file.truncate(0)
            os.write(file.fileno(), json.dumps(asdict(lease)).encode())
        except OSError:
            pass
    return lease
