"""Rules that remove accidental differences between two builds from a file tree. They have names and versions, which are recorded.

A rule gets one file of the sealed image at a time and returns the file as it should be, or None to remove it. Rules are few and
narrow: they leave alone what a build did on purpose, and differences with other causes are reported, not hidden.
"""

from __future__ import annotations

import hashlib
import re
import stat
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from baker.disks.ext4.layout import FileNode

Read = Callable[[FileNode], bytes]
INDEX_MAGIC = b"DIRC"
TIMESTAMP = re.compile(rb"^(TIMESTAMP_NSEC=)\d+$", re.MULTILINE)
BYTECODE = re.compile(r"(?P<directory>.*)/__pycache__/(?P<module>[^/]+)\.cpython-\d+(?:\.opt-\d)?\.pyc")
MAX_REWRITTEN_BYTES = 64 << 20  # larger files are not rewritten


@dataclass(frozen=True)
class View:
    """What a rule may use besides the file itself."""

    nodes: Mapping[str, FileNode]  # all files, by absolute path
    read: Read  # returns the content of a file
    epoch: int  # seconds since 1970: no file that the build changed is newer
    base_mtimes: Mapping[str, int]  # modification times on the backing disk by path, in seconds since 1970


Change = Callable[[str, FileNode, View], FileNode | None]


@dataclass(frozen=True)
class Rule:
    """A named rule. `version` goes up when its effect changes. `effect` and `reason` are its description for the documentation."""

    name: str
    version: int
    effect: str
    reason: str
    change: Change

    @property
    def title(self) -> str:
        return f"{self.name}/{self.version}"


def _times(path: str, node: FileNode, view: View) -> FileNode:
    """Limit the mtime to the epoch, except for the mtime that the file has on the backing disk."""
    return node if node.mtime <= view.epoch or node.mtime == view.base_mtimes.get(path) else replace(node, mtime=view.epoch)


def _sockets(path: str, node: FileNode, view: View) -> FileNode | None:
    return None if stat.S_ISSOCK(node.mode) else node


def _caches(path: str, node: FileNode, view: View) -> FileNode | None:
    removed = path.startswith("/var/cache/man/") and path.endswith("/index.db")
    removed |= path.startswith(("/var/cache/fontconfig/", "/var/lib/plocate/plocate.db", "/var/lib/mlocate/mlocate.db"))
    return None if removed and stat.S_ISREG(node.mode) else node


def _bytecode(path: str, node: FileNode, view: View) -> FileNode:
    """Correct the time of the source in compiled files. PEP 552: magic and flags; when the flags are 0, mtime and size of the source."""
    match = BYTECODE.fullmatch(path) if path.endswith(".pyc") else None
    if match is None or not stat.S_ISREG(node.mode) or node.size > MAX_REWRITTEN_BYTES:
        return node
    source = view.nodes.get(f"{match['directory']}/{match['module']}.py")
    data = view.read(node)
    if source is None or len(data) < 16 or struct.unpack_from("<I", data, 4)[0] != 0:
        return node
    expected = struct.pack("<I", source.mtime & 0xFFFFFFFF)
    return node if data[8:12] == expected else replace(node, content=data[:8] + expected + data[12:], source=None)


def _stamps(path: str, node: FileNode, view: View) -> FileNode:
    """Set the time in the files of systemd-update-done(8) to their own mtime."""
    if path not in ("/etc/.updated", "/var/.updated") or not stat.S_ISREG(node.mode):
        return node
    data = view.read(node)
    expected = TIMESTAMP.sub(rb"\g<1>" + str(node.mtime * 1_000_000_000).encode(), data)
    return node if data == expected else replace(node, content=expected, source=None)


def _clock(path: str, node: FileNode, view: View) -> FileNode:
    """Set the time of systemd-timesyncd's clock file.

    Its mtime is the earliest time that the clock is set to at boot (systemd-timesyncd(8), FILES). It is the build time of systemd
    until a time server answers, so it would show whether the build had a network.
    """
    if path != "/var/lib/systemd/timesync/clock" or not stat.S_ISREG(node.mode) or node.mtime == view.epoch:
        return node
    return replace(node, mtime=view.epoch)


def _git_index(path: str, node: FileNode, view: View) -> FileNode:
    """Clear what depends on the machine in the stat data of a git index: times, device, inode, owner (gitformat-index(5))."""
    if not path.endswith("/.git/index") or not stat.S_ISREG(node.mode) or node.size > MAX_REWRITTEN_BYTES:
        return node
    data = bytearray(view.read(node))
    if data[:4] != INDEX_MAGIC or len(data) < 32 or hashlib.sha1(data[:-20], usedforsecurity=False).digest() != data[-20:]:
        return node
    version, count = struct.unpack_from(">II", data, 4)
    if version not in (2, 3):
        return node
    position = 12
    for _ in range(count):
        data[position : position + 24] = bytes(24)  # ctime, mtime, device, inode
        data[position + 28 : position + 36] = bytes(8)  # uid, gid
        (flags,) = struct.unpack_from(">H", data, position + 60)
        head = 64 if version >= 3 and flags & 0x4000 else 62
        name = data.index(0, position + head) - position
        position += (name + 8) & ~7
    data[-20:] = hashlib.sha1(data[:-20], usedforsecurity=False).digest()
    return replace(node, content=bytes(data), source=None)


RULES: tuple[Rule, ...] = (
    Rule(
        "times",
        1,
        "limits the modification time of files that the build changed to SOURCE_DATE_EPOCH, and sets access, change and creation times "
        "to the modification time, in full seconds",
        "every build runs at a different time",
        _times,
    ),
    Rule("sockets", 1, "removes sockets", "nothing listens on them, and their service creates them again", _sockets),
    Rule(
        "caches",
        1,
        "removes the indexes of man-db, fontconfig and locate",
        "they contain times and inode numbers, and a timer or the next use creates them again",
        _caches,
    ),
    Rule(
        "bytecode",
        1,
        "sets the time of the source in Python's compiled files to the modification time that the source has now",
        "Python compiles a file again when the two differ",
        _bytecode,
    ),
    Rule(
        "stamps",
        1,
        "sets the time in `/etc/.updated` and `/var/.updated` to their modification time",
        "they contain the time of the build in nanoseconds",
        _stamps,
    ),
    Rule(
        "clock",
        1,
        "sets the modification time of `/var/lib/systemd/timesync/clock` to SOURCE_DATE_EPOCH",
        "it depends on whether a time server answered during the build",
        _clock,
    ),
    Rule(
        "git-index",
        1,
        "clears times, device, inode and owner in git indexes",
        "they depend on the machine, and git fills them in again",
        _git_index,
    ),
)


@dataclass(frozen=True)
class Applied:
    """The files after all rules, by path, and the paths that each rule changed, by the rule's title."""

    nodes: Mapping[str, FileNode]
    changes: Mapping[str, tuple[str, ...]]


def apply(
    nodes: Mapping[str, FileNode], read: Read, epoch: int, base_mtimes: Mapping[str, int] | None = None, rules: tuple[Rule, ...] = RULES
) -> Applied:
    """Apply all rules, one after the other, to all files.

    `nodes` are the files by absolute path; `epoch` is in seconds since 1970; `base_mtimes` are the modification times on the
    backing disk, by path. Changes by the rule "times" are not reported, since it changes nearly every file of a build.
    """
    changes: dict[str, list[str]] = {rule.title: [] for rule in rules}
    current: dict[str, FileNode] = dict(nodes)
    for rule in rules:
        view = View(current, read, epoch, base_mtimes or {})
        following: dict[str, FileNode] = {}
        for path, node in current.items():
            changed = rule.change(path, node, view)
            if changed is not None:
                following[path] = changed
            if changed is not node and rule.name != "times":
                changes[rule.title].append(path)
        current = following
    return Applied(current, {title: tuple(paths) for title, paths in changes.items()})
