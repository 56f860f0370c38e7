"""The file tree of a disk as its own system sees it: the root file system with the file systems that /etc/fstab mounts in it."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from baker.core.model import Disk
from baker.disks.ext4.journal import open_replayed
from baker.disks.ext4.reader import ROOT_INODE, DamagedFilesystem, Ext4, Inode, UnsupportedFilesystem
from baker.disks.ext4.tree import Tree
from baker.disks.partitions import Partition, filesystem, partitions
from baker.disks.raw import RawReader, open_raw

PARTITION_DEVICE = re.compile(r"/dev/(?:[svx]v?d[a-z]+|nvme\d+n\d+p|mmcblk\d+p)(\d+)")
EXT = frozenset({"ext2", "ext3", "ext4", "auto"})
NEVER_ROOT = frozenset({"swap", "vfat", ""})  # file systems that a disk may have besides its root
DEFAULT_LIMIT = 64 << 20  # bytes of a file that are read into memory, unless the caller asks for more
KERNELS = re.compile(r"(?:vmlinuz|vmlinux|bzImage)(?:-.+)?|kernel-.+")


@dataclass(frozen=True, slots=True)
class RootFile:
    """A file of the tree: its path, its inode, and the file system that holds it."""

    path: str
    inode: Inode
    tree: Tree


class Root:
    """The root file system of a disk with the file systems that are mounted in it, by mount point. Returned by `open_root`."""

    def __init__(self, tree: Tree, mounts: dict[str, Tree]) -> None:
        self.tree = tree
        self.mounts = mounts

    @property
    def needs_recovery(self) -> bool:
        """Whether one of the file systems was not unmounted, so that its latest changes may exist only in its journal."""
        return any(tree.fs.needs_recovery for tree in (self.tree, *self.mounts.values()))

    def walk(self) -> Iterator[RootFile]:
        """Yield every file in the order of path components: the root, then each directory followed by its content."""
        pending = [("/", self.tree, ROOT_INODE)]
        seen: set[tuple[int, int]] = set()
        while pending:
            path, tree, number = pending.pop()
            if path in self.mounts:
                tree, number = self.mounts[path], ROOT_INODE
            inode = tree.fs.inode(number)
            yield RootFile(path, inode, tree)
            if not inode.is_dir:
                continue
            if (id(tree), number) in seen:
                raise DamagedFilesystem(f"the directory {path} contains itself")
            seen.add((id(tree), number))
            prefix = "" if path == "/" else path
            pending += [(f"{prefix}/{name}", tree, child) for name, child in sorted(tree.entries(inode).items(), reverse=True)]

    def sha256(self, file: RootFile) -> str:
        """The SHA-256 of a regular file's content, in hex."""
        digest = hashlib.sha256()
        for piece in file.tree.data(file.inode):
            digest.update(piece)
        return digest.hexdigest()

    def _locate(self, path: str) -> tuple[Tree, str]:
        """The file system that `path` is in, and the path inside that file system."""
        for mount in sorted(self.mounts, key=len, reverse=True):
            if path == mount or path.startswith(mount + "/"):
                return self.mounts[mount], path[len(mount) :] or "/"
        return self.tree, path

    def read(self, path: str, *, limit: int = DEFAULT_LIMIT) -> bytes | None:
        """The content of a regular file, at most `limit` bytes of it; None when there is no such file."""
        tree, inside = self._locate(path)
        return tree.read(inside, limit=limit)

    def names(self, path: str) -> list[str]:
        """The sorted names in a directory; empty when there is no such directory."""
        tree, inside = self._locate(path)
        return sorted(tree.listing(inside))


@contextmanager
def open_root(disk: Disk, *, scratch: Path | None = None, replay: bool = False) -> Iterator[Root]:
    """Open the file tree of `disk`. UnsupportedFilesystem, naming what there is, when its root is not ext2, ext3 or ext4.

    With `replay`, changes that exist only in a journal are visible too, so that the disk of a running machine can be read.
    """
    with open_raw(disk, scratch=scratch) as reader, damage_as_error():
        yield mounted_root(reader, replay=replay)


@contextmanager
def damage_as_error() -> Iterator[None]:
    """Report a structure that is cut off (struct.error) while a file system is read as DamagedFilesystem."""
    try:
        yield
    except struct.error as error:
        raise DamagedFilesystem(str(error)) from error


def mounted_root(reader: RawReader, *, replay: bool = False) -> Root:
    """The file tree of an open disk; see `open_root`."""
    parts = partitions(reader)
    kinds = {part: filesystem(reader, part) for part in parts}
    open_filesystem = open_replayed if replay else Ext4
    trees = {part: Tree(open_filesystem(reader, part.start)) for part in parts if kinds[part] == "ext4"}
    tree = _root_tree(trees, kinds)
    return Root(tree, _mounts(tree, trees))


def _root_tree(trees: dict[Partition, Tree], kinds: dict[Partition, str]) -> Tree:
    """The root file system: the one with /etc and /usr or /bin, otherwise the only one that can be it."""
    for tree in trees.values():
        names = tree.entries(tree.root)
        if "etc" in names and ("usr" in names or "bin" in names):
            return tree
    others = sorted({kind for kind in kinds.values() if kind != "ext4"} - NEVER_ROOT)
    if len(trees) == 1 and not others:
        return next(iter(trees.values()))
    raise UnsupportedFilesystem(
        f"bake cannot read this disk's root file system: the disk has {', '.join(others) or 'no file system that bake can read'}",
        hint="bake reads ext2, ext3 and ext4",
    )


def _mounts(root: Tree, trees: dict[Partition, Tree]) -> dict[str, Tree]:
    """The other file systems that /etc/fstab (fstab(5)) mounts, by mount point."""
    mounts: dict[str, Tree] = {}
    for line in (root.read("/etc/fstab") or b"").decode("utf-8", "replace").splitlines():
        fields = line.split()
        if len(fields) < 3 or fields[0].startswith("#") or not EXT & set(fields[2].split(",")):
            continue
        device, mount_point = fields[0].replace('"', ""), "/" + fields[1].strip("/")
        tree = next((tree for part, tree in trees.items() if tree is not root and _is_device(device, part, tree)), None)
        if tree is not None and mount_point != "/":
            mounts[mount_point] = tree
    return mounts


def _is_device(device: str, part: Partition, tree: Tree) -> bool:
    """Whether the first field of a line of /etc/fstab names this partition."""
    identifiers = {
        "UUID": tree.fs.uuid, "LABEL": tree.fs.label, "PARTUUID": part.uuid, "PARTLABEL": part.name,
    }  # fmt: skip
    kind, equals, value = device.partition("=")
    if equals:
        identifier = identifiers.get(kind, "")
        return bool(identifier) and (identifier.lower() == value.lower() if "UUID" in kind else identifier == value)
    match = PARTITION_DEVICE.fullmatch(device)
    return match is not None and int(match[1]) == part.number


def find_kernel(disk: Disk, *, scratch: Path | None = None) -> bytes | None:
    """The content of the Linux kernel with the highest version in its name; None when there is none or bake cannot read the disk."""
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
    """A sort key that compares numbers by value: "vmlinuz-6.1.0-9" before "vmlinuz-6.1.0-18"."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
