"""A new layout for the files of an ext4 file system in the same geometry, which depends on the files only, not on their history.

The blocks of a file system normally depend on everything that ever happened to it. Here they depend on its files and on the same
file system on the backing disk. A file that has not changed since keeps its blocks, so that the delta to the backing disk stays
small. A changed file reuses its old blocks first. Everything else goes to the lowest free blocks, in the order of paths. All times
are the file's mtime, generations are 0, and directories are sorted, without a hash tree.
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
    fits_in_inode,
    split_extents,
    tree_size,
)
from baker.disks.ext4.geometry import SUPERBLOCK, Geometry
from baker.disks.ext4.reader import EXTENTS_FLAG, ROOT_INODE, CannotNormalize, DamagedFilesystem, Inode
from baker.disks.ext4.tree import Tree
from baker.disks.extents import FreeBlocks, Run, clipped, disjoint, first_blocks, gaps, merged, subtract

LOST_AND_FOUND, PREALLOCATED = "/lost+found", 4  # blocks that the directory has, so that e2fsck need not allocate any
MAX_SUBDIRECTORY_LINKS = 65000  # a directory with more links has a link count of 1 (dir_nlink)


@dataclass(frozen=True, slots=True)
class FileNode:
    """A file to write, by its `path` in the file system. Its content is `content` or, when that is None, the content of `source`.

    `target` is that of a symbolic link, `device` the (major, minor) of a device node. Nodes with the same `link_group` other than
    0 are names of one file.
    """

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
    link_group: int = 0

    @property
    def size(self) -> int:
        """Bytes of content, or of a symbolic link's target."""
        if stat.S_ISLNK(self.mode):
            return len(self.target)
        return len(self.content) if self.content is not None else self.source.size if self.source else 0


@dataclass(frozen=True, slots=True)
class Copy:
    """`count` blocks to copy from block `origin` of the disk that was read to block `place`; zeros follow after `size` bytes."""

    place: int
    origin: int | None  # None: zeros
    count: int
    size: int


@dataclass
class Layout:
    """A new layout: what to write. All other blocks read as the backing disk, or as zeros without one."""

    blocks: dict[int, bytes] = field(default_factory=dict)  # content by block number
    copies: list[Copy] = field(default_factory=list)
    zeros: list[Run] = field(default_factory=list)
    files_in_place: int = 0  # regular files whose blocks are those of the backing disk


@dataclass(slots=True)
class _PlannedFile:
    """A file while its layout is computed: its inode number and its blocks."""

    node: FileNode
    links: int = 0
    number: int = 0
    old: Inode | None = None  # the file of the same type at this path on the backing disk
    unchanged: bool = False
    allocated: tuple[Run, ...] = ()  # blocks of the file that are no holes
    data: list[Run] = field(default_factory=list)
    tree: list[Run] = field(default_factory=list)  # blocks of the extent tree
    xattr: list[Run] = field(default_factory=list)  # the block with extended attributes
    inline_xattrs: bytes = b""
    encode_xattr_block: Callable[[int], bytes] | None = None


SameContent = Callable[[Inode, Inode], bool]


class BackingFilesystem:
    """The same file system on the backing disk. `same_content(new, old)` compares the content of two files of equal size."""

    def __init__(self, tree: Tree, same_content: SameContent) -> None:
        self.tree, self.same_content = tree, same_content
        self.paths = dict(walk(tree))

    def blocks_of(self, inode: Inode) -> tuple[list[Run], list[Run], list[Run]]:
        """(data, extent tree, attributes): the blocks of an inode. Data in a block map (ext2, ext3) is left out."""
        attributes = [(inode.xattr_block, 1)] if inode.xattr_block else []
        if not inode.flags & EXTENTS_FLAG:
            return [], [], attributes
        data = [(place, count) for _, place, count in self.tree.fs.runs(inode) if place is not None]
        return data, list(self.tree.fs.tree_blocks(inode)), attributes


def walk(tree: Tree) -> Iterator[tuple[str, int]]:
    """Yield (path, inode number) of every file of one file system, in the order of path components."""
    pending = [("/", ROOT_INODE)]
    seen: set[int] = set()
    while pending:
        path, number = pending.pop()
        yield path, number
        inode = tree.fs.inode(number)
        if not inode.is_dir:
            continue
        if number in seen:
            raise DamagedFilesystem(f"the directory {path} contains itself")
        seen.add(number)
        prefix = "" if path == "/" else path
        pending += [(f"{prefix}/{name}", child) for name, child in sorted(tree.entries(inode).items(), reverse=True)]


def compute_layout(geometry: Geometry, nodes: Sequence[FileNode], tree: Tree, backing: BackingFilesystem | None, *, epoch: int) -> Layout:
    """Compute the layout of a file system with the files `nodes`, whose sources are in `tree`.

    `nodes` are in the order of path components, the root first. `epoch` is the time of the superblock, in seconds since 1970.
    CannotNormalize when something would be lost, or does not fit.
    """
    return _LayoutBuilder(geometry, nodes, tree, backing, epoch).layout()


class _LayoutBuilder:
    """Computes one layout; see `compute_layout`."""

    def __init__(self, geometry: Geometry, nodes: Sequence[FileNode], tree: Tree, backing: BackingFilesystem | None, epoch: int) -> None:
        self._geometry, self._nodes, self._tree, self._backing, self._epoch = geometry, nodes, tree, backing, epoch
        self._result = Layout()
        self._files: list[_PlannedFile] = []
        self._by_path: dict[str, _PlannedFile] = {}
        self._children: dict[str, list[str]] = {}
        self._static = merged(geometry.static_runs())

    def layout(self) -> Layout:
        self._collect_files()
        self._assign_inodes()
        self._reuse_blocks()
        self._allocate_blocks()
        self._write_files()
        self._write_fixed_inodes()
        self._write_groups()
        self._zero_freed_blocks()
        return self._result

    # --- files and inode numbers -----------------------------------------------------------------------------------

    def _collect_files(self) -> None:
        """Make one _PlannedFile per inode, with its link count."""
        groups: dict[int, _PlannedFile] = {}
        subdirectories: Counter[str] = Counter()
        for node in self._nodes:
            file = groups.get(node.link_group) if node.link_group else None
            if file is None:
                file = _PlannedFile(node)
                self._files.append(file)
                if node.link_group:
                    groups[node.link_group] = file
            file.links += 1
            self._by_path[node.path] = file
            if node.path != "/":
                self._children.setdefault(_parent(node.path), []).append(node.path)
                subdirectories[_parent(node.path)] += stat.S_ISDIR(node.mode)
        for file in self._files:
            if stat.S_ISDIR(file.node.mode):
                links = 2 + subdirectories[file.node.path]
                file.links = links if links <= MAX_SUBDIRECTORY_LINKS else 1

    def _assign_inodes(self) -> None:
        """Give every file its inode number on the backing disk or, when it has none there, the lowest free one."""
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
                raise CannotNormalize("the file system has too few inodes", code="disk.filesystem-full")
            file.number = following
            claimed.add(following)

    def _old(self, path: str) -> Inode | None:
        """The inode at a path on the backing disk."""
        number = self._backing.paths.get(path) if self._backing else None
        return self._backing.tree.fs.inode(number) if self._backing and number else None

    # --- blocks ----------------------------------------------------------------------------------------------------

    def _reuse_blocks(self) -> None:
        """Give every file those of its blocks on the backing disk that it can use again."""
        shared: set[Run] = set()  # attribute blocks that are given away: several files may have used one
        for file in self._files:
            file.inline_xattrs, file.encode_xattr_block = encode_xattrs(self._geometry, file.node.xattrs, file.node.path)
            data, tree, attributes = self._old_blocks(file.old)
            file.allocated = self._blocks_to_allocate(file)
            needed = sum(count for _, count in file.allocated)
            if file.old and self._has_old_content(file):
                file.unchanged, file.data = True, data
                self._result.files_in_place += 1
            else:
                file.data = first_blocks(data, needed)
            file.xattr = [run for run in attributes if run not in shared] if file.encode_xattr_block else []
            shared.update(file.xattr)
            file.tree = tree if len(_single_blocks(tree)) == tree_size(self._geometry, len(self._extents(file, file.data))) else []

    def _old_blocks(self, old: Inode | None) -> tuple[list[Run], list[Run], list[Run]]:
        """The blocks of a file on the backing disk (data, extent tree, attributes) that hold no fixed part of the file system now."""
        if old is None or self._backing is None:
            return [], [], []
        data, tree, attributes = self._backing.blocks_of(old)
        return disjoint(data, self._static), disjoint(tree, self._static), disjoint(attributes, self._static)

    def _blocks_to_allocate(self, file: _PlannedFile) -> tuple[Run, ...]:
        """The blocks of the file to allocate: those that its source has allocated, up to the end of the file."""
        node, size = file.node, self._geometry.block_size
        blocks = -(-node.size // size)
        if stat.S_ISDIR(node.mode):
            return ((0, len(self._directory(file)) // size),)
        if stat.S_ISLNK(node.mode):
            return () if fits_in_inode(node.target) else ((0, blocks),)
        if not stat.S_ISREG(node.mode) or not blocks:
            return ()
        if node.content is not None or node.source is None:
            return ((0, blocks),)
        return tuple(merged((first, min(count, blocks - first)) for first, _, count in self._tree.fs.runs(node.source) if first < blocks))

    def _has_old_content(self, file: _PlannedFile) -> bool:
        """Whether a file can keep all its blocks of the backing disk, because their content and holes are the same."""
        node, old = file.node, file.old
        if not stat.S_ISREG(node.mode) or node.content is not None or node.source is None or old is None or self._backing is None:
            return False
        if node.size != old.size or not old.flags & EXTENTS_FLAG:
            return False
        runs = list(self._backing.tree.fs.runs(old))
        if merged((first, count) for first, _, count in runs) != list(file.allocated) or any(place is None for _, place, _ in runs):
            return False
        places = [(place, count) for _, place, count in runs if place is not None]
        return disjoint(places, self._static) == places and self._backing.same_content(node.source, old)

    def _allocate_blocks(self) -> None:
        """Allocate the blocks that are still missing."""
        free = FreeBlocks(gaps(merged([*self._static, *self._file_blocks()]), self._geometry.first_block, self._geometry.blocks))
        try:
            for file in self._files:
                file.data = [*file.data, *free.allocate(sum(count for _, count in file.allocated) - sum(count for _, count in file.data))]
                if file.encode_xattr_block and not file.xattr:
                    file.xattr = free.allocate(1)
                needed = tree_size(self._geometry, len(self._extents(file, file.data)))
                if len(_single_blocks(file.tree)) != needed:
                    file.tree = free.allocate(needed)
        except ValueError:
            raise CannotNormalize("the file system is too full to be normalized", code="disk.filesystem-full") from None

    def _extents(self, file: _PlannedFile, places: Sequence[Run]) -> list[Extent]:
        """The extents that map the file's allocated blocks to `places`, in order, as far as `places` suffice."""
        extents: list[Extent] = []
        rest = list(reversed(places))
        for logical, count in file.allocated:
            while count and rest:
                place, length = rest.pop()
                used = min(length, count)
                extents.append((logical, place, used))
                if used < length:
                    rest.append((place + used, length - used))
                logical, count = logical + used, count - used
        return split_extents(extents)

    # --- content ---------------------------------------------------------------------------------------------------

    def _write_files(self) -> None:
        """Write all files and the inode tables."""
        tables: dict[int, bytearray] = {}
        size = self._geometry.block_size
        for fixed in self._geometry.fixed:
            block, offset = self._geometry.inode_place(fixed.number)
            tables.setdefault(block, bytearray(size))[offset : offset + len(fixed.raw)] = fixed.raw
        for file in self._files:
            raw = self._write_file(file)
            block, offset = self._geometry.inode_place(file.number)
            tables.setdefault(block, bytearray(size))[offset : offset + len(raw)] = raw
        self._result.blocks |= {block: bytes(data) for block, data in tables.items()}
        every = [(self._geometry.table_of(group), self._geometry.table_blocks) for group in range(self._geometry.groups)]
        self._result.zeros += subtract(every, [(block, 1) for block in tables])

    def _write_file(self, file: _PlannedFile) -> bytes:
        """Write the blocks of a file; returns its inode, encoded."""
        node, geometry = file.node, self._geometry
        extents = self._extents(file, file.data)
        if stat.S_ISDIR(node.mode):
            self._write_data(extents, self._directory(file))
        elif stat.S_ISLNK(node.mode):
            self._write_data(extents, node.target)
        elif node.content is not None:
            self._write_data(extents, node.content)
        elif not file.unchanged and node.source is not None:
            self._copy_data(node.source, extents)
        sectors = sum(count for runs in (file.data, file.tree, file.xattr) for _, count in runs) * (geometry.block_size // 512)
        block, mapped = self._encode_i_block(file, extents)
        if file.encode_xattr_block:
            self._result.blocks[file.xattr[0][0]] = file.encode_xattr_block(file.xattr[0][0])
        size = sum(count for _, count in file.allocated) * geometry.block_size if stat.S_ISDIR(node.mode) else node.size
        data = Metadata(node.mode, node.uid, node.gid, node.mtime, file.links, size, node.flags)
        body = Body(block, mapped, sectors, file.inline_xattrs, file.xattr[0][0] if file.xattr else 0)
        return encode_inode(geometry, file.number, data, body)

    def _encode_i_block(self, file: _PlannedFile, extents: Sequence[Extent]) -> tuple[bytes, bool]:
        """(i_block, whether it holds an extent tree) of a file. Writes the blocks of the extent tree."""
        node = file.node
        if node.device is not None:
            return device_body(node.device), False
        if stat.S_ISLNK(node.mode) and fits_in_inode(node.target):
            return node.target, False
        if not (stat.S_ISREG(node.mode) or stat.S_ISDIR(node.mode) or stat.S_ISLNK(node.mode)):
            return b"", False
        block, trees = encode_extents(self._geometry, file.number, extents, _single_blocks(file.tree))
        self._result.blocks |= trees
        return block, True

    def _write_data(self, extents: Sequence[Extent], data: bytes) -> None:
        """Write `data` to the blocks of `extents`."""
        size = self._geometry.block_size
        for logical, place, count in extents:
            for index in range(count):
                self._result.blocks[place + index] = data[(logical + index) * size : (logical + index + 1) * size].ljust(size, b"\0")

    def _copy_data(self, source: Inode, extents: Sequence[Extent]) -> None:
        """Copy the content of `source` to the blocks of `extents`."""
        size = self._geometry.block_size
        origins = iter(self._tree.fs.runs(source))
        first, origin, length = next(origins, (0, None, 0))
        for extent in extents:
            logical, place, count = extent
            while count:
                while logical >= first + length:
                    first, origin, length = next(origins)
                used = min(count, first + length - logical)
                bytes_left = min(source.size - logical * size, used * size)
                self._result.copies.append(Copy(place, None if origin is None else origin + logical - first, used, bytes_left))
                logical, place, count = logical + used, place + used, count - used

    def _directory(self, file: _PlannedFile) -> bytes:
        """The blocks of a directory, encoded."""
        node = file.node
        parent = self._by_path[_parent(node.path)].number
        min_blocks = PREALLOCATED if node.path == LOST_AND_FOUND else 1
        return directory_blocks(self._geometry, file.number, parent, self._entries_of(node.path), min_blocks=min_blocks)

    def _entries_of(self, path: str) -> list[tuple[bytes, int, int]]:
        """(name, inode number, mode) of the files in a directory, sorted by name."""
        entries = []
        for child in self._children.get(path, ()):
            file = self._by_path[child]
            entries.append((child.rpartition("/")[2].encode("utf-8", "surrogateescape"), file.number, file.node.mode))
        return sorted(entries)

    # --- fixed parts -----------------------------------------------------------------------------------------------

    def _write_fixed_inodes(self) -> None:
        """Empty the journal, and copy the blocks of the other fixed inodes and the reserved descriptor blocks."""
        geometry = self._geometry
        head = geometry.journal_superblock()
        (journal,) = struct.unpack_from("<I", geometry.superblock, 0xE0)
        for fixed in geometry.fixed:
            if head is not None and fixed.number == journal:
                self._result.blocks[fixed.data[0][0]] = head
                self._result.zeros += subtract(fixed.data, [(fixed.data[0][0], 1)])
                self._copy_in_place(subtract(fixed.blocks, fixed.data))
            else:
                self._copy_in_place(fixed.blocks)
        for group in range(geometry.groups):
            if geometry.has_super(group):
                self._copy_in_place([(geometry.group_start(group) + 1 + geometry.gdt_blocks, geometry.reserved_gdt)])

    def _copy_in_place(self, runs: Sequence[Run]) -> None:
        """Copy blocks from the disk that was read to the same places."""
        size = self._geometry.block_size
        self._result.copies += [Copy(start, start, count, count * size) for start, count in runs if count]

    def _write_groups(self) -> None:
        """Write bitmaps, group descriptors and superblocks, which count the used blocks and inodes."""
        geometry = self._geometry
        used = merged([*self._static, *self._file_blocks()])
        inodes = merged((number - 1, 1) for number in self._used_inodes())
        per_group = geometry.inodes_per_group
        directories = Counter((file.number - 1) // per_group for file in self._files if stat.S_ISDIR(file.node.mode))
        descriptors, total_blocks, total_inodes = [], 0, 0
        for group in range(geometry.groups):
            start, size = geometry.group_start(group), geometry.group_blocks(group)
            used_here = list(clipped(used, start, size))
            inodes_here = list(clipped(inodes, group * per_group, per_group))
            bitmap, inode_bitmap = geometry.bitmap(size, used_here), geometry.bitmap(per_group, inodes_here)
            self._result.blocks |= {geometry.block_bitmap_of(group): bitmap, geometry.inode_bitmap_of(group): inode_bitmap}
            free_blocks = size - sum(count for _, count in used_here)
            free_inodes = per_group - sum(count for _, count in inodes_here)
            counts = (free_blocks, free_inodes, directories[group], per_group - (sum(inodes_here[-1]) if inodes_here else 0))
            descriptors.append(geometry.descriptor(group, counts, (bitmap, inode_bitmap)))
            total_blocks, total_inodes = total_blocks + free_blocks, total_inodes + free_inodes
        self._write_superblocks(b"".join(descriptors), total_blocks, total_inodes)

    def _used_inodes(self) -> Iterator[int]:
        """Yield the numbers of reserved and used inodes."""
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
            raw = geometry.clean_superblock(group, free_blocks=free_blocks, free_inodes=free_inodes, epoch=self._epoch)
            if group == 0 and size > SUPERBLOCK:  # the bytes before it may hold a boot loader
                first_block = bytearray(geometry.fs.read(0, size))
                first_block[SUPERBLOCK : 2 * SUPERBLOCK] = raw
                self._result.blocks[block] = bytes(first_block)
            else:
                self._result.blocks[block] = raw.ljust(size, b"\0")
            for index in range(geometry.gdt_blocks):
                self._result.blocks[block + 1 + index] = padded[index * size : (index + 1) * size]

    def _zero_freed_blocks(self) -> None:
        """Write zeros to blocks that are free now: without a backing disk to all, otherwise to those that were in use there."""
        used = [*self._static, *self._file_blocks()]
        if self._backing is None:
            self._result.zeros += gaps(merged(used), self._geometry.first_block, self._geometry.blocks)
            return
        inodes = (self._backing.tree.fs.inode(number) for number in set(self._backing.paths.values()))
        self._result.zeros += subtract((run for inode in inodes for runs in self._backing.blocks_of(inode) for run in runs), used)

    def _file_blocks(self) -> Iterator[Run]:
        """Yield the blocks of all files."""
        for file in self._files:
            yield from (*file.data, *file.tree, *file.xattr)


def _single_blocks(runs: Sequence[Run]) -> list[int]:
    """The numbers of the blocks of `runs`."""
    return [start + index for start, count in runs for index in range(count)]


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"
