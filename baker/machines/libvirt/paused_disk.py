"""A machine of another process that stands still for a moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def frozen(disk: Path) -> Iterator[None]:
    """The QEMU that writes to `disk` does nothing until the end. Its file is then what a power cut would leave: QEMU writes the tables of
    a qcow2 in an order that keeps it whole, and a flush by the guest has come through."""
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
                continue  # somebody ended it


def writers(disk: Path) -> Iterator[int]:
    """The QEMU processes with `disk` open for writing."""
    wanted = os.path.realpath(disk)
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if not (directory / "comm").read_text().startswith("qemu"):
                continue
            for handle in (directory / "fd").iterdir():
                if str(handle.readlink()) == wanted and _writes(directory / "fdinfo" / handle.name):
                    yield int(directory.name)
                    break
        except OSError:
            continue  # gone meanwhile, or somebody else's


def _writes(info: Path) -> bool:
    """proc(5): `flags` is octal, as open(2) got it."""
    flags = next((line.split()[1] for line in info.read_text().splitlines() if line.startswith("flags:")), "0")
    return int(flags, 8) & os.O_ACCMODE != os.O_RDONLY
