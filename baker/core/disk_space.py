"""Space on the host's file systems, and errors of files as HostErrors: full, read-only, forbidden."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from baker.core.errors import HostError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def existing(path: Path) -> Path:
    """`path` or its nearest ancestor that exists."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def mount_point(path: Path) -> Path:
    """The mount point of the file system that holds `path`, or would hold it."""
    path = existing(path).resolve()
    while not path.is_mount() and path != path.parent:
        path = path.parent
    return path


def read_only(path: Path) -> bool:
    """Whether the file system that holds `path`, or would hold it, is mounted read-only."""
    return bool(os.statvfs(existing(path)).f_flag & os.ST_RDONLY)


def free(path: Path) -> int:
    """The free space of the file system of `path` for this user, in bytes."""
    found = os.statvfs(existing(path))
    return found.f_bavail * found.f_frsize


def human(size: int) -> str:
    """Format a number of bytes for people: "1.4 GiB"."""
    value = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def full(path: Path, *, needed: int | None = None) -> HostError:
    """The error for a full file system. `needed`: how many bytes the work has to write."""
    suffix = f"; {human(needed)} ({needed} bytes) are needed" if needed is not None else ""
    mount = mount_point(path)
    return HostError(
        f"no space left for {path}: the file system at {mount} has {human(free(path))} free{suffix}",
        hint=f"make room on {mount}, remove images with `bake rm` and leftovers with `bake sweep`, or set BAKE_HOME elsewhere",
        code="host.disk-full",
    )


def host_error(error: OSError, path: Path, *, needed: int | None = None) -> HostError:
    """Convert an OSError from writing or reading `path` to a HostError that says what to do."""
    if error.errno in FULL:
        return full(path, needed=needed)
    if error.errno == errno.EROFS:
        return HostError(
            f"cannot write {path}: the file system at {mount_point(path)} is read-only",
            hint="set BAKE_HOME to a directory on a writable file system",
            code="host.read-only",
        )
    if error.errno in FORBIDDEN:
        hint = f"check the owner and mode of {existing(path)}"
        return HostError(f"no permission to use {path}: {error.strerror}", hint=hint, code="host.forbidden")
    return HostError(f"cannot use {path}: {error.strerror or error}", code="host.io")
