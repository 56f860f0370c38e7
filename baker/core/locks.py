"""Locks between processes: files held with flock(2), so that the kernel lets go when a process ends, however it ends."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from baker.core.home import ensure


@contextmanager
def exclusive(directory: Path, name: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock `name` in `directory`; `on_wait` is called once if another process holds it now."""
    path = ensure(directory) / f"{name}.lock"
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait:
                on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def shared(directory: Path, name: str) -> Iterator[None]:
    """Hold the lock `name` together with others who only share it; waits for one who holds it alone."""
    path = ensure(directory) / f"{name}.lock"
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


@contextmanager
def try_exclusive(directory: Path, name: str) -> Iterator[bool]:
    """Hold the lock `name` in `directory`, or learn by False that another process holds it."""
    with try_file(ensure(directory) / f"{name}.lock") as got:
        yield got


@contextmanager
def try_file(path: Path) -> Iterator[bool]:
    """The same for a lock file of any name, in a directory that is there."""
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
