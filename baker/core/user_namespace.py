"""Work on files that belong to many users as an ordinary user, in a user namespace: user_namespaces(7), subuid(5).

root does not need one. For other users, `unshare` maps root inside to the user and the other users inside to the user's range of
subordinate ids, with the set-uid programs newuidmap and newgidmap (Debian package uidmap).
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from baker.core.errors import HostError
from baker.core.process import need, run

NEEDED_IDS = 65536


def is_root() -> bool:
    return os.geteuid() == 0


def in_namespace(argv: Sequence[str]) -> list[str]:
    """The command that runs `argv` as root: `argv` itself when this process is root, else in a user namespace."""
    if is_root():
        return list(argv)
    check_host()
    return [need("unshare", package="util-linux"), "--map-root-user", "--map-auto", "--", *argv]


def check_host() -> None:
    """Raise HostError unless this user can create user namespaces with many ids, or is root."""
    if is_root():
        return
    need("newuidmap", package="uidmap")
    names = {getpass.getuser(), str(os.getuid())}
    for table in (Path("/etc/subuid"), Path("/etc/subgid")):
        lines = table.read_text().splitlines() if table.exists() else []
        fields = (line.split(":") for line in lines if line.count(":") == 2)
        if not any(name in names and int(count) >= NEEDED_IDS for name, _, count in fields):
            raise HostError(
                f"{getpass.getuser()} has no {NEEDED_IDS} subordinate ids in {table}, which bootstrapping without root needs",
                hint=f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {getpass.getuser()}",
                code="host.no-subordinate-ids",
            )


def in_private_mounts(argv: Sequence[str]) -> list[str]:
    """The command that runs `argv` so that its mounts are private to it, and are unmounted when its last process ends, however that ends.
    Only root needs this: the mounts in a user namespace are private already."""
    if not is_root():
        return list(argv)
    return [need("unshare", package="util-linux"), "--mount", "--propagation", "private", "--", *argv]


def remove_tree(directory: Path) -> None:
    """Remove a directory of this user, even when it holds files of subordinate ids. Does nothing when it does not exist.

    This never enters another file system: everything that is mounted below is unmounted first. When that fails, HostError is raised and
    nothing is removed, because the mount may be the host's own /proc, /sys or /dev.
    """
    unmount_below(directory)
    shutil.rmtree(directory, ignore_errors=True)
    if directory.exists() and not is_root():
        run(in_namespace(["rm", "-rf", "--one-file-system", "--", str(directory)]))
    elif directory.exists():
        shutil.rmtree(directory)


def unmount_below(directory: Path) -> None:
    """Unmount everything that is mounted below `directory`, the newest mount first. HostError, with its path, when one remains."""
    for point in reversed(mounts_below(directory)):
        run(["umount", "--lazy", "--", str(point)], check=False)
    left = mounts_below(directory)
    if left:
        raise HostError(f"{left[0]} is mounted below {directory}", hint=f"as root: umount --lazy {left[0]}", code="host.mounted-below")


def mounts_below(directory: Path, table: Path = Path("/proc/self/mountinfo")) -> list[Path]:
    """The mount points below `directory` (without itself), in the order of /proc/pid/mountinfo, proc(5)."""
    top = directory.resolve()
    points = [Path(_unescaped(line.split(" ")[4])) for line in table.read_text().splitlines()]
    return [point for point in points if point != top and point.is_relative_to(top)]


def _unescaped(text: str) -> str:
    """A path of mountinfo, in which a space, tab, newline and backslash are a backslash and three octal digits, proc(5)."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
