"""What the host's file systems refuse, in words: full, read-only, forbidden."""

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
    """Where the file system that holds `path` (or would hold it) is mounted."""
    path = existing(path).resolve()
    while not path.is_mount() and path != path.parent:
        path = path.parent
    return path


def read_only(path: Path) -> bool:
    """Whether the file system that holds `path` (or would hold it) is mounted read-only."""
    return bool(os.statvfs(existing(path)).f_flag & os.ST_RDONLY)


def free(path: Path) -> int:
    """The bytes that this user may still write to the file system of `path`."""
    found = os.statvfs(existing(path))
    return found.f_bavail * found.f_frsize


def human(size: int) -> str:
    """`size` bytes for people: "1.4 GiB"."""
    value = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def full(path: Path, *, needed: int | None = None) -> HostError:
    """The error for a file system without room; `needed` is how many bytes the work wants to write."""
    wanted = f"; {human(needed)} ({needed} bytes) are needed" if needed is not None else ""
    mount = mount_point(path)
    return HostError(
        f"no space left for {path}: the file system at {mount} has {human(free(path))} free{wanted}",
        hint=f"make room on {mount}, remove images with `bake rm` and leftovers with `bake sweep`, or set BAKE_HOME elsewhere",
        code="host.disk-full",
    )


def host_error(error: OSError, path: Path, *, needed: int | None = None) -> HostError:
    """`error`, met while `path` was being written or read, as a HostError that names the file system."""
    if error.errno in FULL:
        return full(path, needed=needed)
    if error.errno == errno.EROFS:
        return HostError(
            f"cannot write {path}: the file system at {mount_point(path)} is read-only",
            hint="set BAKE_HOME to a directory on a writable file system",
            code="host.read-only",
        )
    if error.errno in FORBIDDEN:
        hint = f"look at the owner and mode of {existing(path)}"
        return HostError(f"no permission to use {path}: {error.strerror}", hint=hint, code="host.forbidden")
    return HostError(f"cannot use {path}: {error.strerror or error}", code="host.io")
