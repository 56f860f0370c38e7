"""What of a file tree differs between two builds by accident, and what is done about it: named rules with versions, on record.

A rule sees one file of the sealed image at a time and gives back the file as it is to be, or None when it leaves. Rules are few and
narrow: what a build did on purpose is nobody's business, and what differs for another reason is reported, not hidden.
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
STAMP = re.compile(rb"^(TIMESTAMP_NSEC=)\d+$", re.MULTILINE)
BYTECODE = re.compile(r"(?P<directory>.*)/__pycache__/(?P<module>[^/]+)\.cpython-\d+(?:\.opt-\d)?\.pyc")
LARGEST = 64 << 20  # bytes of a file that a rule rewrites


@dataclass(frozen=True)
class View:
    """What a rule may look at: the whole tree by absolute path, bytes of a file, and the time that nothing is newer than."""

    nodes: Mapping[str, FileNode]
    read: Read
    epoch: int
    known: Mapping[str, int]  # when the files of the backing disk were modified


Change = Callable[[str, FileNode, View], FileNode | None]


@dataclass(frozen=True)
class Rule:
    """`version` goes up when the rule does something else."""

    name: str
    version: int
    what: str
    why: str
    change: Change

    @property
    def title(self) -> str:
        return f"{self.name}/{self.version}"


def _times(path: str, node: FileNode, view: View) -> FileNode:
    return node if node.mtime <= view.epoch or node.mtime == view.known.get(path) else replace(node, mtime=view.epoch)


def _sockets(path: str, node: FileNode, view: View) -> FileNode | None:
    return None if stat.S_ISSOCK(node.mode) else node


def _caches(path: str, node: FileNode, view: View) -> FileNode | None:
    dropped = path.startswith("/var/cache/man/") and path.endswith("/index.db")
    dropped |= path.startswith(("/var/cache/fontconfig/", "/var/lib/plocate/plocate.db", "/var/lib/mlocate/mlocate.db"))
    return None if dropped and stat.S_ISREG(node.mode) else node


def _bytecode(path: str, node: FileNode, view: View) -> FileNode:
    """PEP 552: magic, flags; where these are 0, the source's mtime and size."""
    match = BYTECODE.fullmatch(path) if path.endswith(".pyc") else None
    if match is None or not stat.S_ISREG(node.mode) or node.size > LARGEST:
        return node
    source = view.nodes.get(f"{match['directory']}/{match['module']}.py")
    data = view.read(node)
    if source is None or len(data) < 16 or struct.unpack_from("<I", data, 4)[0] != 0:
        return node
    wanted = struct.pack("<I", source.mtime & 0xFFFFFFFF)
    return node if data[8:12] == wanted else replace(node, content=data[:8] + wanted + data[12:], source=None)


def _stamps(path: str, node: FileNode, view: View) -> FileNode:
    if path not in ("/etc/.updated", "/var/.updated") or not stat.S_ISREG(node.mode):
        return node
    data = view.read(node)
    wanted = STAMP.sub(rb"\g<1>" + str(node.mtime * 1_000_000_000).encode(), data)
    return node if data == wanted else replace(node, content=wanted, source=None)


def _clock(path: str, node: FileNode, view: View) -> FileNode:
    """systemd-timesyncd(8), FILES: its time is the least that the clock is set to at boot. It is that of systemd's own making as long
    as no time server has answered, so it tells whether the build had a network."""
    if path != "/var/lib/systemd/timesync/clock" or not stat.S_ISREG(node.mode) or node.mtime == view.epoch:
        return node
    return replace(node, mtime=view.epoch)


def _git_index(path: str, node: FileNode, view: View) -> FileNode:
    """Documentation/gitformat-index: entries with 40 bytes of stat data, of which times, device, inode and owner are the machine's."""
    if not path.endswith("/.git/index") or not stat.S_ISREG(node.mode) or node.size > LARGEST:
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
        "no file that the build changed is newer than SOURCE_DATE_EPOCH; fractions of seconds, access, change and creation times "
        "are those of the "
        "modification",
        "every build runs at another time",
        _times,
    ),
    Rule("sockets", 1, "sockets in the file system leave", "nothing listens on them: the service makes them again", _sockets),
    Rule(
        "caches",
        1,
        "the indexes of man-db, fontconfig and locate leave",
        "they hold times and inode numbers; a timer or the next use makes them again",
        _caches,
    ),
    Rule(
        "bytecode",
        1,
        "the time of its source in Python's compiled files is the one that the source has now",
        "Python compiles a file anew when the two differ",
        _bytecode,
    ),
    Rule(
        "stamps",
        1,
        "/etc/.updated and /var/.updated have the time that they stand for",
        "they hold the moment of the build in nanoseconds",
        _stamps,
    ),
    Rule(
        "clock",
        1,
        "/var/lib/systemd/timesync/clock has the time SOURCE_DATE_EPOCH",
        "it has another one when no time server answered during the build",
        _clock,
    ),
    Rule(
        "git-index", 1, "times, device, inode and owner in a git index are 0", "git looks at the files again and fills them in", _git_index
    ),
)


@dataclass(frozen=True)
class Applied:
    """The tree as it is to be, and what each rule had to do: paths by the rule's title."""

    nodes: Mapping[str, FileNode]
    changes: Mapping[str, tuple[str, ...]]


def apply(
    nodes: Mapping[str, FileNode], read: Read, epoch: int, known: Mapping[str, int] | None = None, rules: tuple[Rule, ...] = RULES
) -> Applied:
    """All rules on all files. `nodes`: by absolute path; `known`: the times in the file system that this one began as. A change of time
    alone is not told: every file of a build has one."""
    changes: dict[str, list[str]] = {rule.title: [] for rule in rules}
    current: dict[str, FileNode] = dict(nodes)
    for rule in rules:
        view = View(current, read, epoch, known or {})
        following: dict[str, FileNode] = {}
        for path, node in current.items():
            changed = rule.change(path, node, view)
            if changed is not None:
                following[path] = changed
            if changed is not node and rule.name != "times":
                changes[rule.title].append(path)
        current = following
    return Applied(current, {title: tuple(paths) for title, paths in changes.items()})
