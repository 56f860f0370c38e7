"""Locks between the processes of this host: files locked with flock(2). Only this module calls it.

The kernel releases such a lock when its process ends, however it ends. So a lock file that can be locked has no live holder.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

from baker.core.home import ensure


def lock(file: IO[Any], *, shared: bool = False, wait: bool = True) -> bool:
    """Lock an open file until it is closed. Without `wait`, False when another process holds the lock."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True, on_wait: Callable[[], None] | None = None) -> Iterator[IO[str] | None]:
    """Hold the lock file `path`, which is created where it is missing; its directory has to exist.

    Yields the open file, or None when another process holds the lock and `wait` is false. `on_wait` is called once before waiting.
    A file that was removed or renamed before it was locked protects nothing any more, so it is created and locked again.
    """
    while True:
        with path.open("a") as file:
            if not lock(file, shared=shared, wait=False):
                if not wait:
                    yield None
                    return
                if on_wait:
                    on_wait()
                    on_wait = None
                lock(file, shared=shared)
            if _is_at(path, file.fileno()):
                yield file
                return


def exclusive(directory: Path, name: str, on_wait: Callable[[], None] | None = None) -> AbstractContextManager[object]:
    """Hold the lock `name` in `directory` alone; `on_wait` is called once if another process holds it now."""
    return locked(_file(directory, name), on_wait=on_wait)


def shared(directory: Path, name: str) -> AbstractContextManager[object]:
    """Hold the lock `name` in `directory` together with others that share it. Waits for a process that holds it alone."""
    return locked(_file(directory, name), shared=True)


@contextmanager
def try_exclusive(directory: Path, name: str) -> Iterator[bool]:
    """Hold the lock `name` in `directory` alone, or yield False at once when another process holds it."""
    with locked(_file(directory, name), wait=False) as file:
        yield file is not None


def _file(directory: Path, name: str) -> Path:
    return ensure(directory) / f"{name}.lock"


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
