"""Work on files that belong to many users, as an ordinary user: user_namespaces(7) with the ranges of subuid(5).

root needs none of it. For anybody else `unshare` maps root inside to the user, and the other users inside to the user's range of
subordinate ids, through the set-uid helpers newuidmap and newgidmap (package uidmap).
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
    """`argv`, run as root: directly when this process is root, else inside of a user namespace."""
    if is_root():
        return list(argv)
    check_host()
    return [need("unshare", package="util-linux"), "--map-root-user", "--map-auto", "--", *argv]


def check_host() -> None:
    """HostError, with what to do, unless this user can make user namespaces with many ids. root always can do without."""
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
    """`argv` so that what it mounts nobody else sees, and is gone with its last process, however that ends. For root: an ordinary
    user's namespace has that already."""
    if not is_root():
        return list(argv)
    return [need("unshare", package="util-linux"), "--mount", "--propagation", "private", "--", *argv]


def remove_tree(directory: Path) -> None:
    """Remove a directory of ours, also when it holds files of subordinate ids. Nothing happens when it is gone.

    Never enters another file system: what is mounted below is unmounted first, and when that cannot be nothing is removed, for it may be
    the host's own /proc, /sys or /dev.
    """
    unmount_below(directory)
    shutil.rmtree(directory, ignore_errors=True)
    if directory.exists() and not is_root():
        run(in_namespace(["rm", "-rf", "--one-file-system", "--", str(directory)]))
    elif directory.exists():
        shutil.rmtree(directory)


def unmount_below(directory: Path) -> None:
    """Unmount everything that is mounted below `directory`, deepest first. HostError naming what stays mounted."""
    for point in reversed(mounts_below(directory)):
        run(["umount", "--lazy", "--", str(point)], check=False)
    left = mounts_below(directory)
    if left:
        raise HostError(f"{left[0]} is mounted below {directory}", hint=f"as root: umount --lazy {left[0]}", code="host.mounted-below")


def mounts_below(directory: Path, table: Path = Path("/proc/self/mountinfo")) -> list[Path]:
    """The mount points below `directory` (not itself), in the order in which they were mounted: proc(5), /proc/pid/mountinfo."""
    top = directory.resolve()
    points = [Path(_unescaped(line.split(" ")[4])) for line in table.read_text().splitlines()]
    return [point for point in points if point != top and point.is_relative_to(top)]


def _unescaped(text: str) -> str:
    """A path of mountinfo: blanks and the like stand in it as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
