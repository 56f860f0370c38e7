"""Laying an ext4 file system out again in place: the same files in the same geometry, at places that depend on nothing but them.

What a file system's blocks hold depends on everything that ever happened to it. Here it depends on its files and on `before`, the file
system that it began as: a file that has not changed since stays where it was, so that the difference between the two disks stays
small; a changed one takes its own old blocks first; all else goes, in the order of paths, to the lowest place that is free. All times
are the file's mtime, generations are 0, directories are sorted and have no hash tree.
"""

from __future__ import annotations

import stat
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from baker.disks.ext4.encode import (  # fmt: skip
    Attribute,
    Body,
    Extent,
    Metadata,
    device_body,
    directory_blocks,
    encode_extents,
    encode_inode,
    encode_xattrs,
    inline_target,
    split_extents,
    tree_size,
)
from baker.disks.ext4.geometry import SUPERBLOCK, Geometry
from baker.disks.ext4.reader import EXTENTS_FLAG, ROOT_INODE, Inode, UnsupportedFilesystem
from baker.disks.ext4.tree import Tree
from baker.disks.extents import Free, Run, clipped, first_of, gaps, merged, untouched, without

LOST_AND_FOUND, PREALLOCATED = "/lost+found", 4  # blocks that e2fsck may use without allocating
MOST_LINKS = 65000  # of a directory; one with more says 1 (dir_nlink)


@dataclass(frozen=True, slots=True)
class FileNode:
    """A file as it is to be. `path` is that inside the file system. Its bytes are `content`, else those of `source`."""

    path: str
    mode: int
    uid: int
    gid: int
    mtime: int
    flags: int = 0
    xattrs: tuple[Attribute, ...] = ()
    target: bytes = b""
    device: tuple[int, int] | None = None
    source: Inode | None = None
    content: bytes | None = None
    linked: int = 0  # names with the same number, if it is not 0, are one file

    @property
    def size(self) -> int:
        if stat.S_ISLNK(self.mode):
            return len(self.target)
        return len(self.content) if self.content is not None else self.source.size if self.source else 0


@dataclass(frozen=True, slots=True)
class Copy:
    """Blocks that come from the disk that was read: `count` of them from `origin` on go to `place`; what is after `size` bytes is zeros."""

    place: int
    origin: int | None  # None: zeros
    count: int
    size: int


@dataclass
class Layout:
    """A new layout as what is to be written; everything else stays as it was on the disk that `before` is on, or is zeros."""

    blocks: dict[int, bytes] = field(default_factory=dict)
    copies: list[Copy] = field(default_factory=list)
    zeros: list[Run] = field(default_factory=list)
    kept: int = 0  # files that are where they were before


@dataclass(slots=True)
class _File:
    """An inode on its way: what it is, and where it goes."""

    node: FileNode
    links: int = 0
    number: int = 0
    old: Inode | None = None  # what had this path before, and is of its type
    unchanged: bool = False
    shape: tuple[Run, ...] = ()  # logical blocks that are allocated
    data: list[Run] = field(default_factory=list)
    tree: list[Run] = field(default_factory=list)
    xattr: list[Run] = field(default_factory=list)
    inside: bytes = b""
    xattr_of: Callable[[int], bytes] | None = None


Same = Callable[[Inode, Inode], bool]


class Before:
    """The file system that another one began as. `same` tells whether a file of the new one has the content of one of this."""

    def __init__(self, tree: Tree, same: Same) -> None:
        self.tree, self.same = tree, same
        self.paths = dict(walk(tree))

    def blocks_of(self, inode: Inode) -> tuple[list[Run], list[Run], list[Run]]:
        """(data, extent tree, attributes): the blocks that an inode has."""
        attributes = [(inode.xattr_block, 1)] if inode.xattr_block else []
        if not inode.flags & EXTENTS_FLAG:
            return [], [], attributes
        data = [(place, count) for _, place, count in self.tree.fs.runs(inode) if place is not None]
        return data, list(self.tree.fs.tree_blocks(inode)), attributes


def walk(tree: Tree) -> Iterator[tuple[str, int]]:
    """(path, inode number) of everything in one file system, in the order of path components."""
    pending = [("/", ROOT_INODE)]
    seen: set[int] = set()
    while pending:
        path, number = pending.pop()
        yield path, number
        inode = tree.fs.inode(number)
        if not inode.is_dir:
            continue
        if number in seen:
            raise UnsupportedFilesystem(f"the ext4 file system is damaged: {path} is in itself")
        seen.add(number)
        prefix = "" if path == "/" else path
        pending += [(f"{prefix}/{name}", below) for name, below in sorted(tree.entries(inode).items(), reverse=True)]


def lay_out(geometry: Geometry, nodes: Sequence[FileNode], tree: Tree, before: Before | None, *, epoch: int) -> Layout:
    """Where everything goes. `nodes` are all files, in the order of path components, the root first; `tree` is what their sources are in.

    UnsupportedFilesystem when something in it would be lost, or does not fit."""
    return _Layouter(geometry, nodes, tree, before, epoch).layout()


class _Layouter:
    def __init__(self, geometry: Geometry, nodes: Sequence[FileNode], tree: Tree, before: Before | None, epoch: int) -> None:
        self._geometry, self._nodes, self._tree, self._before, self._epoch = geometry, nodes, tree, before, epoch
        self._result = Layout()
        self._files: list[_File] = []
        self._by_path: dict[str, _File] = {}
        self._children: dict[str, list[str]] = {}
        self._static = merged(geometry.static_runs())

    def layout(self) -> Layout:
        self._gather()
        self._number()
        self._claim()
        self._place()
        self._write_files()
        self._write_fixed()
        self._write_groups()
        self._free_old()
        return self._result

    # --- what there is ---------------------------------------------------------------------------------------------

    def _gather(self) -> None:
        """One _File per inode, and which file of before it was."""
        groups: dict[int, _File] = {}
        subdirectories: Counter[str] = Counter()
        for node in self._nodes:
            file = groups.get(node.linked) if node.linked else None
            if file is None:
                file = _File(node)
                self._files.append(file)
                if node.linked:
                    groups[node.linked] = file
            file.links += 1
            self._by_path[node.path] = file
            if node.path != "/":
                self._children.setdefault(_parent(node.path), []).append(node.path)
                subdirectories[_parent(node.path)] += stat.S_ISDIR(node.mode)
        for file in self._files:
            if stat.S_ISDIR(file.node.mode):
                links = 2 + subdirectories[file.node.path]
                file.links = links if links <= MOST_LINKS else 1

    def _number(self) -> None:
        """Inode numbers: those of before, else the lowest free ones."""
        fixed = {each.number for each in self._geometry.fixed}
        claimed = set(range(1, self._geometry.first_inode)) | fixed
        self._files[0].number = ROOT_INODE
        for file in self._files:
            old = self._old(file.node.path)
            if old is None or (old.number in claimed and old.number != ROOT_INODE) or stat.S_IFMT(old.mode) != stat.S_IFMT(file.node.mode):
                continue
            file.old, file.number = old, old.number
            claimed.add(old.number)
        following = self._geometry.first_inode
        for file in self._files:
            if file.number:
                continue
            while following in claimed:
                following += 1
            if following > self._geometry.inodes:
                raise UnsupportedFilesystem("the file system has too few inodes")
            file.number = following
            claimed.add(following)

    def _old(self, path: str) -> Inode | None:
        number = self._before.paths.get(path) if self._before else None
        return self._before.tree.fs.inode(number) if self._before and number else None

    # --- where it goes ---------------------------------------------------------------------------------------------

    def _claim(self) -> None:
        """What every file takes of the blocks that it had before. Attributes of several files may have been in one block."""
        shared: set[Run] = set()
        for file in self._files:
            file.inside, file.xattr_of = encode_xattrs(self._geometry, file.node.xattrs, file.node.path)
            data, tree, attributes = self._old_blocks(file.old)
            file.shape = self._shape(file)
            wanted = sum(count for _, count in file.shape)
            if file.old and self._is_unchanged(file):
                file.unchanged, file.data = True, data
                self._result.kept += 1
            else:
                file.data = first_of(data, wanted)
            file.xattr = [run for run in attributes if run not in shared] if file.xattr_of else []
            shared.update(file.xattr)
            file.tree = tree if len(_singles(tree)) == tree_size(self._geometry, len(self._extents(file, file.data))) else []

    def _old_blocks(self, old: Inode | None) -> tuple[list[Run], list[Run], list[Run]]:
        """Its blocks of before, as far as nothing static is there now."""
        if old is None or self._before is None:
            return [], [], []
        data, tree, attributes = self._before.blocks_of(old)
        return untouched(data, self._static), untouched(tree, self._static), untouched(attributes, self._static)

    def _shape(self, file: _File) -> tuple[Run, ...]:
        """The logical blocks that are to be allocated: those that were, up to the end of the file."""
        node, size = file.node, self._geometry.block_size
        blocks = -(-node.size // size)
        if stat.S_ISDIR(node.mode):
            return ((0, len(self._directory(file)) // size),)
        if stat.S_ISLNK(node.mode):
            return () if inline_target(node.target) else ((0, blocks),)
        if not stat.S_ISREG(node.mode) or not blocks:
            return ()
        if node.content is not None or node.source is None:
            return ((0, blocks),)
        return tuple(merged((first, min(count, blocks - first)) for first, _, count in self._tree.fs.runs(node.source) if first < blocks))

    def _is_unchanged(self, file: _File) -> bool:
        node, old = file.node, file.old
        if not stat.S_ISREG(node.mode) or node.content is not None or node.source is None or old is None or self._before is None:
            return False
        if node.size != old.size or not old.flags & EXTENTS_FLAG:
            return False
        runs = list(self._before.tree.fs.runs(old))
        if merged((first, count) for first, _, count in runs) != list(file.shape) or any(place is None for _, place, _ in runs):
            return False
        places = [(place, count) for _, place, count in runs if place is not None]
        return untouched(places, self._static) == places and self._before.same(node.source, old)

    def _place(self) -> None:
        """Blocks for what the old ones are not enough for."""
        free = Free(gaps(merged([*self._static, *self._taken()]), self._geometry.first_block, self._geometry.blocks))
        try:
            for file in self._files:
                file.data = [*file.data, *free.take(sum(count for _, count in file.shape) - sum(count for _, count in file.data))]
                if file.xattr_of and not file.xattr:
                    file.xattr = free.take(1)
                needed = tree_size(self._geometry, len(self._extents(file, file.data)))
                if len(_singles(file.tree)) != needed:
                    file.tree = free.take(needed)
        except ValueError:
            raise UnsupportedFilesystem("the file system is too full to be laid out again") from None

    def _extents(self, file: _File, places: Sequence[Run]) -> list[Extent]:
        """The logical blocks of its shape on `places`, in order; as far as those go."""
        found: list[Extent] = []
        rest = list(reversed(places))
        for logical, count in file.shape:
            while count and rest:
                place, length = rest.pop()
                used = min(length, count)
                found.append((logical, place, used))
                if used < length:
                    rest.append((place + used, length - used))
                logical, count = logical + used, count - used
        return split_extents(found)

    # --- what is written -------------------------------------------------------------------------------------------

    def _write_files(self) -> None:
        tables: dict[int, bytearray] = {}
        size = self._geometry.block_size
        for fixed in self._geometry.fixed:
            block, offset = self._geometry.inode_place(fixed.number)
            tables.setdefault(block, bytearray(size))[offset : offset + len(fixed.raw)] = fixed.raw
        for file in self._files:
            raw = self._file(file)
            block, offset = self._geometry.inode_place(file.number)
            tables.setdefault(block, bytearray(size))[offset : offset + len(raw)] = raw
        self._result.blocks |= {block: bytes(data) for block, data in tables.items()}
        every = [(self._geometry.table_of(group), self._geometry.table_blocks) for group in range(self._geometry.groups)]
        self._result.zeros += without(every, [(block, 1) for block in tables])

    def _file(self, file: _File) -> bytes:
        """Write a file's blocks; returns its inode."""
        node, geometry = file.node, self._geometry
        extents = self._extents(file, file.data)
        if stat.S_ISDIR(node.mode):
            self._put(extents, self._directory(file))
        elif stat.S_ISLNK(node.mode):
            self._put(extents, node.target)
        elif node.content is not None:
            self._put(extents, node.content)
        elif not file.unchanged and node.source is not None:
            self._copy(node.source, extents)
        sectors = sum(count for runs in (file.data, file.tree, file.xattr) for _, count in runs) * (geometry.block_size // 512)
        block, mapped = self._block(file, extents)
        if file.xattr_of:
            self._result.blocks[file.xattr[0][0]] = file.xattr_of(file.xattr[0][0])
        size = sum(count for _, count in file.shape) * geometry.block_size if stat.S_ISDIR(node.mode) else node.size
        data = Metadata(node.mode, node.uid, node.gid, node.mtime, file.links, size, node.flags)
        body = Body(block, mapped, sectors, file.inside, file.xattr[0][0] if file.xattr else 0)
        return encode_inode(geometry, file.number, data, body)

    def _block(self, file: _File, extents: Sequence[Extent]) -> tuple[bytes, bool]:
        """(i_block, whether it holds extents)."""
        node = file.node
        if node.device is not None:
            return device_body(node.device), False
        if stat.S_ISLNK(node.mode) and inline_target(node.target):
            return node.target, False
        if not (stat.S_ISREG(node.mode) or stat.S_ISDIR(node.mode) or stat.S_ISLNK(node.mode)):
            return b"", False
        block, trees = encode_extents(self._geometry, file.number, extents, _singles(file.tree))
        self._result.blocks |= trees
        return block, True

    def _put(self, extents: Sequence[Extent], data: bytes) -> None:
        size = self._geometry.block_size
        for logical, place, count in extents:
            for index in range(count):
                self._result.blocks[place + index] = data[(logical + index) * size : (logical + index + 1) * size].ljust(size, b"\0")

    def _copy(self, source: Inode, extents: Sequence[Extent]) -> None:
        """The source's bytes, in its own order, to where its extents are now."""
        size = self._geometry.block_size
        origins = iter(self._tree.fs.runs(source))
        first, origin, length = next(origins, (0, None, 0))
        for start, start_place, whole in extents:
            logical, place, count = start, start_place, whole
            while count:
                while logical >= first + length:
                    first, origin, length = next(origins)
                used = min(count, first + length - logical)
                bytes_left = min(source.size - logical * size, used * size)
                self._result.copies.append(Copy(place, None if origin is None else origin + logical - first, used, bytes_left))
                logical, place, count = logical + used, place + used, count - used

    def _directory(self, file: _File) -> bytes:
        node = file.node
        parent = self._by_path[_parent(node.path)].number
        at_least = PREALLOCATED if node.path == LOST_AND_FOUND else 1
        return directory_blocks(self._geometry, file.number, parent, self._entries_of(node.path), at_least=at_least)

    def _entries_of(self, path: str) -> list[tuple[bytes, int, int]]:
        found = []
        for child in self._children.get(path, ()):
            below = self._by_path[child]
            found.append((child.rpartition("/")[2].encode("utf-8", "surrogateescape"), below.number, below.node.mode))
        return sorted(found)

    # --- fixed places ----------------------------------------------------------------------------------------------

    def _write_fixed(self) -> None:
        """The journal, empty; what else keeps its content."""
        geometry = self._geometry
        head = geometry.journal_superblock()
        (journal,) = struct.unpack_from("<I", geometry.superblock, 0xE0)
        for fixed in geometry.fixed:
            if head is not None and fixed.number == journal:
                self._result.blocks[fixed.data[0][0]] = head
                self._result.zeros += without(fixed.data, [(fixed.data[0][0], 1)])
                self._carry(without(fixed.blocks, fixed.data))
            else:
                self._carry(fixed.blocks)
        for group in range(geometry.groups):
            if geometry.has_super(group):
                self._carry([(geometry.group_start(group) + 1 + geometry.gdt_blocks, geometry.reserved_gdt)])

    def _carry(self, runs: Sequence[Run]) -> None:
        size = self._geometry.block_size
        self._result.copies += [Copy(start, start, count, count * size) for start, count in runs if count]

    def _write_groups(self) -> None:
        """Bitmaps, descriptors and superblocks, which count what is there."""
        geometry = self._geometry
        used = merged([*self._static, *self._taken()])
        inodes = merged((number - 1, 1) for number in self._all_inodes())
        per_group = geometry.inodes_per_group
        directories = Counter((file.number - 1) // per_group for file in self._files if stat.S_ISDIR(file.node.mode))
        descriptors, total_blocks, total_inodes = [], 0, 0
        for group in range(geometry.groups):
            start, size = geometry.group_start(group), geometry.group_blocks(group)
            here = list(clipped(used, start, size))
            mine = list(clipped(inodes, group * per_group, per_group))
            bitmap, inode_bitmap = geometry.bitmap(size, here), geometry.bitmap(per_group, mine)
            self._result.blocks |= {geometry.bitmap_of(group): bitmap, geometry.inode_bitmap_of(group): inode_bitmap}
            free_blocks = size - sum(count for _, count in here)
            free_inodes = per_group - sum(count for _, count in mine)
            counts = (free_blocks, free_inodes, directories[group], per_group - (sum(mine[-1]) if mine else 0))
            descriptors.append(geometry.descriptor(group, counts, (bitmap, inode_bitmap)))
            total_blocks, total_inodes = total_blocks + free_blocks, total_inodes + free_inodes
        self._write_superblocks(b"".join(descriptors), total_blocks, total_inodes)

    def _all_inodes(self) -> Iterator[int]:
        yield from range(1, self._geometry.first_inode)
        yield from (fixed.number for fixed in self._geometry.fixed if fixed.number >= self._geometry.first_inode)
        yield from (file.number for file in self._files if file.number != ROOT_INODE)

    def _write_superblocks(self, descriptors: bytes, free_blocks: int, free_inodes: int) -> None:
        geometry, size = self._geometry, self._geometry.block_size
        padded = descriptors.ljust(geometry.gdt_blocks * size, b"\0")
        for group in range(geometry.groups):
            if not geometry.has_super(group):
                continue
            block = geometry.group_start(group)
            raw = geometry.settled_superblock(group, free_blocks=free_blocks, free_inodes=free_inodes, epoch=self._epoch)
            if group == 0 and size > SUPERBLOCK:  # before it is room for a boot loader
                whole = bytearray(geometry.fs.read(0, size))
                whole[SUPERBLOCK : 2 * SUPERBLOCK] = raw
                self._result.blocks[block] = bytes(whole)
            else:
                self._result.blocks[block] = raw.ljust(size, b"\0")
            for index in range(geometry.gdt_blocks):
                self._result.blocks[block + 1 + index] = padded[index * size : (index + 1) * size]

    def _free_old(self) -> None:
        """Zeros where something was before and nothing is now."""
        now = [*self._static, *self._taken()]
        if self._before is None:
            self._result.zeros += gaps(merged(now), self._geometry.first_block, self._geometry.blocks)
            return
        inodes = (self._before.tree.fs.inode(number) for number in set(self._before.paths.values()))
        self._result.zeros += without((run for inode in inodes for runs in self._before.blocks_of(inode) for run in runs), now)

    def _taken(self) -> Iterator[Run]:
        """The blocks of all files."""
        for file in self._files:
            yield from (*file.data, *file.tree, *file.xattr)


def _singles(runs: Sequence[Run]) -> list[int]:
    return [start + index for start, count in runs for index in range(count)]


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"
