"""Pause a machine that another process runs, to read its disk."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def paused_writer(disk: Path) -> Iterator[None]:
    """Stop the QEMU that writes to `disk` until the context ends.

    The file is then what a power cut would leave: QEMU writes the tables of a qcow2 in an order that keeps it consistent, and what the
    guest has flushed is in the file.
    """
    stopped = []
    try:
        for pid in writers(disk):
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)
        yield
    finally:
        for pid in stopped:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                continue  # it has ended


def writers(disk: Path) -> Iterator[int]:
    """The ids of QEMU processes that have `disk` open for writing."""
    path = os.path.realpath(disk)
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if not (directory / "comm").read_text().startswith("qemu"):
                continue
            for handle in (directory / "fd").iterdir():
                if str(handle.readlink()) == path and _is_writable(directory / "fdinfo" / handle.name):
                    yield int(directory.name)
                    break
        except OSError:
            continue  # the process has ended, or belongs to another user


def _is_writable(info: Path) -> bool:
    """Whether a file descriptor is open for writing. proc(5): `flags` of fdinfo are the flags of open(2) in octal."""
    flags = next((line.split()[1] for line in info.read_text().splitlines() if line.startswith("flags:")), "0")
    return int(flags, 8) & os.O_ACCMODE != os.O_RDONLY
