"""The file tree of a disk as its own system would see it: the root file system, and what /etc/fstab mounts below it."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from baker.core.model import Disk
from baker.disks.ext4.journal import replayed
from baker.disks.ext4.reader import ROOT_INODE, Ext4, Inode, UnsupportedFilesystem
from baker.disks.ext4.tree import Tree
from baker.disks.partitions import Partition, filesystem, partitions
from baker.disks.raw import RawReader, open_raw

DEVICE = re.compile(r"/dev/(?:[svx]v?d[a-z]+|nvme\d+n\d+p|mmcblk\d+p)(\d+)")
EXT = frozenset({"ext2", "ext3", "ext4", "auto"})
BORING = frozenset({"swap", "vfat", ""})  # what a disk may have besides its one root
LARGEST = 64 << 20  # bytes of a file that are read at once, unless somebody asks for more
KERNELS = re.compile(r"(?:vmlinuz|vmlinux|bzImage)(?:-.+)?|kernel-.+")


@dataclass(frozen=True, slots=True)
class Found:
    """A file of the tree: where, what, and the file system that has it."""

    path: str
    inode: Inode
    tree: Tree


class Root:
    """All file systems of a disk that bake can read, joined as they are mounted. Made by `open_root`."""

    def __init__(self, tree: Tree, mounts: dict[str, Tree]) -> None:
        self.tree = tree
        self.mounts = mounts

    @property
    def needs_recovery(self) -> bool:
        """Whether a file system was not unmounted, so that its newest changes may be in its journal only."""
        return any(tree.fs.needs_recovery for tree in (self.tree, *self.mounts.values()))

    def walk(self) -> Iterator[Found]:
        """Every file, the root first, then in the order of path components: a directory, what is in it, then its next neighbour."""
        pending = [("/", self.tree, ROOT_INODE)]
        seen: set[tuple[int, int]] = set()
        while pending:
            path, tree, number = pending.pop()
            if path in self.mounts:
                tree, number = self.mounts[path], ROOT_INODE
            inode = tree.fs.inode(number)
            yield Found(path, inode, tree)
            if not inode.is_dir:
                continue
            if (id(tree), number) in seen:
                raise UnsupportedFilesystem(f"the ext4 file system is damaged: {path} is in itself")
            seen.add((id(tree), number))
            prefix = "" if path == "/" else path
            pending += [(f"{prefix}/{name}", tree, below) for name, below in sorted(tree.entries(inode).items(), reverse=True)]

    def sha256(self, found: Found) -> str:
        """The SHA-256 of a regular file, in hex."""
        digest = hashlib.sha256()
        for piece in found.tree.data(found.inode):
            digest.update(piece)
        return digest.hexdigest()

    def _at(self, path: str) -> tuple[Tree, str]:
        """The file system that `path` is in, and its path there."""
        for mount in sorted(self.mounts, key=len, reverse=True):
            if path == mount or path.startswith(mount + "/"):
                return self.mounts[mount], path[len(mount) :] or "/"
        return self.tree, path

    def read(self, path: str, *, limit: int = LARGEST) -> bytes | None:
        """The bytes of a regular file, at most `limit` of them; None where there is none."""
        tree, inside = self._at(path)
        return tree.read(inside, limit=limit)

    def names(self, path: str) -> list[str]:
        """The sorted names in a directory; none where there is no such directory."""
        tree, inside = self._at(path)
        return sorted(tree.listing(inside))


@contextmanager
def open_root(disk: Disk, *, scratch: Path | None = None, replay: bool = False) -> Iterator[Root]:
    """The file tree of `disk`. UnsupportedFilesystem, saying what there is, when its root is not an ext2, ext3 or ext4. With `replay`
    what is in a journal only is seen too: the disk may be that of a machine that runs."""
    with open_raw(disk, scratch=scratch) as reader, whole():
        yield root_of(reader, replay=replay)


@contextmanager
def whole() -> Iterator[None]:
    """What is read inside is not cut off: UnsupportedFilesystem when it is."""
    try:
        yield
    except struct.error as error:
        raise UnsupportedFilesystem(f"the ext4 file system is damaged: {error}") from error


def root_of(reader: RawReader, *, replay: bool = False) -> Root:
    """The file tree of an open disk; see `open_root`."""
    parts = partitions(reader)
    kinds = {part: filesystem(reader, part) for part in parts}
    opened = replayed if replay else Ext4
    trees = {part: Tree(opened(reader, part.start)) for part in parts if kinds[part] == "ext4"}
    tree = _root_of(trees, kinds)
    return Root(tree, _mounts(tree, trees))


def _root_of(trees: dict[Partition, Tree], kinds: dict[Partition, str]) -> Tree:
    for tree in trees.values():
        names = tree.entries(tree.root)
        if "etc" in names and ("usr" in names or "bin" in names):
            return tree
    others = sorted({kind for kind in kinds.values() if kind != "ext4"} - BORING)
    if len(trees) == 1 and not others:
        return next(iter(trees.values()))
    raise UnsupportedFilesystem(
        f"bake cannot read this disk's root file system: it has {', '.join(others) or 'no file system that bake knows'}"
    )


def _mounts(root: Tree, trees: dict[Partition, Tree]) -> dict[str, Tree]:
    """The other file systems that /etc/fstab (fstab(5)) mounts, by path."""
    found: dict[str, Tree] = {}
    for line in (root.read("/etc/fstab") or b"").decode("utf-8", "replace").splitlines():
        fields = line.split()
        if len(fields) < 3 or fields[0].startswith("#") or not EXT & set(fields[2].split(",")):
            continue
        device, where = fields[0].replace('"', ""), "/" + fields[1].strip("/")
        tree = next((tree for part, tree in trees.items() if tree is not root and _is_device(device, part, tree)), None)
        if tree is not None and where != "/":
            found[where] = tree
    return found


def _is_device(device: str, part: Partition, tree: Tree) -> bool:
    known = {
        "UUID": tree.fs.uuid, "LABEL": tree.fs.label, "PARTUUID": part.uuid, "PARTLABEL": part.name,
    }  # fmt: skip
    kind, equals, value = device.partition("=")
    if equals:
        wanted = known.get(kind, "")
        return bool(wanted) and (wanted.lower() == value.lower() if "UUID" in kind else wanted == value)
    match = DEVICE.fullmatch(device)
    return match is not None and int(match[1]) == part.number


def find_kernel(disk: Disk, *, scratch: Path | None = None) -> bytes | None:
    """The newest Linux kernel of a disk, by its name's version; None where there is none or bake cannot read the disk."""
    try:
        with open_root(disk, scratch=scratch) as root:
            names = sorted((name for name in root.names("/boot") if KERNELS.fullmatch(name)), key=_version_key, reverse=True)
            for path in (*(f"/boot/{name}" for name in names), "/vmlinuz"):
                data = root.read(path)
                if data:
                    return data
    except UnsupportedFilesystem:
        pass
    return None


def _version_key(name: str) -> list[tuple[int, str]]:
    """ "vmlinuz-6.1.0-9" before "vmlinuz-6.1.0-18"."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
