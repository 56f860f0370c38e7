"""Reader for ext2, ext3 and ext4 file systems, which needs no mount and no permission except to read the image.

This module reads the superblock, inodes, block maps and file content; tree.py reads names and extended attributes.
Format: the Linux kernel's Documentation/filesystems/ext4 ("ext4 Data Structures and Algorithms"), cited below by section.
"""

from __future__ import annotations

import stat
import struct
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from baker.core.errors import HostError
from baker.disks.raw import CHUNK, ZEROS, RawReader

MAGIC = 0xEF53
ROOT_INODE = 2

# s_feature_incompat (section 4.1, "Super Block")
FILETYPE, RECOVER, META_BG, EXTENTS, BIT64, MMP = 0x2, 0x4, 0x10, 0x40, 0x80, 0x100
FLEX_BG, EA_INODE, CSUM_SEED, LARGEDIR, INLINE_DATA, CASEFOLD = 0x200, 0x400, 0x2000, 0x4000, 0x8000, 0x20000
ENCRYPT = 0x10000  # the file system may hold encrypted files; the reader refuses only those files
KNOWN = FILETYPE | RECOVER | META_BG | EXTENTS | BIT64 | MMP | FLEX_BG | EA_INODE | CSUM_SEED | LARGEDIR | INLINE_DATA | CASEFOLD | ENCRYPT
UNSUPPORTED_NAMES = {0x1: "compression", 0x8: "journal device", 0x1000: "dirdata"}
SPARSE_SUPER, GROUP_CHECKSUMS = 0x1, 0x10 | 0x400  # s_feature_ro_compat; checksums: gdt_csum or metadata_csum
INODES_UNINITIALIZED = 0x1  # bg_flags
SPARSE_SUPER2 = 0x200  # s_feature_compat

# i_flags (section 4.2, "Index Nodes")
ENCRYPT_FLAG, EXTENTS_FLAG, INLINE_FLAG = 0x800, 0x80000, 0x10000000
EXTENT_MAGIC = 0xF30A
UNWRITTEN = 32768  # with an ee_len above this, the extent is allocated, reads as zeros, and has ee_len - 32768 blocks
MAX_TREE_LEVELS = 6  # the root in the inode, and at most five levels of blocks below it

INODE = struct.Struct("<HHIIIIIHHII4x60sIII4xHHHH")
EXTENT = struct.Struct("<IHHI")
EXTENT_INDEX = struct.Struct("<IIH2x")
PAGE = 1 << 16
CACHED_PAGES = 128  # 8 MiB


class UnsupportedFilesystem(HostError):
    """bake cannot read this file system: it is of another kind or uses an unknown feature. Subclasses name other reasons."""

    default_code = "disk.unsupported-filesystem"


class DamagedFilesystem(UnsupportedFilesystem):
    """The structures of an ext file system contradict each other or end early."""

    default_code = "disk.damaged-filesystem"

    def __init__(self, detail: str) -> None:
        super().__init__(
            f"the ext4 file system is damaged: {detail}", hint="run fsck in the machine that wrote the disk, or get the disk again"
        )


class NotUnmounted(UnsupportedFilesystem):
    """The file system was not unmounted, so what is on the disk is not yet what the guest had written."""

    default_code = "disk.not-unmounted"

    def __init__(self) -> None:
        super().__init__(
            "the file system was not unmounted: its latest changes are only in its journal", hint="shut the machine down cleanly"
        )


class CannotNormalize(UnsupportedFilesystem):
    """The file system can be read, but bake cannot write it again without losing something."""

    default_code = "disk.cannot-normalize"


@dataclass(frozen=True, slots=True)
class Inode:
    """The metadata of a file. `block` is i_block (60 bytes), `extra` are the inode's bytes after the first 128.

    `size` is in bytes, `mtime` in seconds since 1970.
    """

    number: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    links: int
    flags: int
    block: bytes
    xattr_block: int
    extra: bytes

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def device(self) -> tuple[int, int] | None:
        """(major, minor) of a device node; None for other files."""
        if not (stat.S_ISCHR(self.mode) or stat.S_ISBLK(self.mode)):
            return None
        old, new = struct.unpack_from("<II", self.block)
        if old:
            return (old >> 8) & 0xFF, old & 0xFF
        return (new & 0xFFF00) >> 8, (new & 0xFF) | ((new >> 12) & 0xFFF00)


class Ext4:
    """The ext file system that begins at byte `start` of `reader`. UnsupportedFilesystem when it cannot be read.

    `recovered` says that `reader` already shows the content of the journal (journal.py).
    """

    def __init__(self, reader: RawReader, start: int = 0, *, recovered: bool = False) -> None:
        self._reader = reader
        self.start = start
        self._recovered = recovered
        self._pages: OrderedDict[int, bytes] = OrderedDict()
        block = reader.pread(start + 1024, 1024)
        if len(block) < 1024 or struct.unpack_from("<H", block, 0x38)[0] != MAGIC:
            raise UnsupportedFilesystem("there is no ext2, ext3 or ext4 file system")
        self.incompat: int = struct.unpack_from("<I", block, 0x60)[0]
        self._refuse_unknown()
        inodes, _, _, _, _, self._first_block, shift = struct.unpack_from("<7I", block)
        self.block_size: int = 1024 << shift
        self._super_block = 1 if self.block_size == 1024 else 0  # also where bigalloc makes s_first_data_block 0
        self.inode_count: int = inodes
        self._blocks_per_group, _, self.inodes_per_group = struct.unpack_from("<3I", block, 0x20)
        dynamic = struct.unpack_from("<I", block, 0x4C)[0] >= 1
        self.inode_size: int = struct.unpack_from("<H", block, 0x58)[0] if dynamic else 128
        self._compat, _, self._ro_compat = struct.unpack_from("<3I", block, 0x5C)
        self.uuid = str(uuid.UUID(bytes=block[0x68:0x78]))
        self.label = block[0x78:0x88].split(b"\0", 1)[0].decode("utf-8", "replace")
        self._descriptor_size: int = struct.unpack_from("<H", block, 0xFE)[0] if self.incompat & BIT64 else 32
        self._first_meta_group: int = struct.unpack_from("<I", block, 0x104)[0]
        self._backup_groups: tuple[int, int] = struct.unpack_from("<II", block, 0x24C)
        if not (self.inodes_per_group and self._blocks_per_group and self.inode_size >= 128 and self._descriptor_size >= 32 and shift <= 6):
            raise DamagedFilesystem("its superblock has impossible values")

    def _refuse_unknown(self) -> None:
        unknown = self.incompat & ~KNOWN
        if unknown:
            bits = [1 << bit for bit in range(32) if unknown >> bit & 1]
            names = ", ".join(UNSUPPORTED_NAMES.get(bit, f"{bit:#x}") for bit in bits)
            raise UnsupportedFilesystem(f"the ext4 file system has features that bake cannot read: {names}")

    @property
    def needs_recovery(self) -> bool:
        """Whether it was not unmounted, so that its journal holds changes that are not in place yet."""
        return bool(self.incompat & RECOVER) and not self._recovered

    # --- blocks and metadata -------------------------------------------------------------------------------------

    def read_block(self, number: int) -> bytes:
        """Read a block, through the cache."""
        return self._cached(number * self.block_size, self.block_size)

    def read(self, offset: int, length: int) -> bytes:
        """Read `length` bytes at `offset` of the file system."""
        return self._reader.pread(self.start + offset, length)

    def _cached(self, offset: int, length: int) -> bytes:
        """Read `length` bytes at `offset` of the file system through a small cache of pages."""
        page, inside = divmod(offset, PAGE)
        if inside + length > PAGE:
            return self._reader.pread(self.start + offset, length)
        data = self._pages.get(page)
        if data is None:
            data = self._pages[page] = self._reader.pread(self.start + page * PAGE, PAGE)
            if len(self._pages) > CACHED_PAGES:
                self._pages.popitem(last=False)
        return data[inside : inside + length]

    def _inode_table(self, group: int) -> int:
        """The first block of the inode table of a group."""
        low = self._descriptor(group, 8, 4)
        return low if self._descriptor_size < 64 else low | self._descriptor(group, 0x28, 4) << 32

    def _descriptor(self, group: int, offset: int, size: int) -> int:
        """A field of `size` bytes in the descriptor of a group (section 3.2, "Block Group Descriptors")."""
        per_block = self.block_size // self._descriptor_size
        index = group // per_block
        if self.incompat & META_BG and index >= self._first_meta_group:
            first = index * per_block
            where = self._first_block + first * self._blocks_per_group + self.has_super(first)
            where += first == 0 and self._super_block > self._first_block
        else:
            where = self._super_block + 1 + index
        place = where * self.block_size + group % per_block * self._descriptor_size
        return int.from_bytes(self._cached(place + offset, size), "little")

    def has_super(self, group: int) -> bool:
        """Whether a group begins with the superblock or a copy of it."""
        if self._compat & SPARSE_SUPER2:
            return group == 0 or group in self._backup_groups
        if group <= 1 or not self._ro_compat & SPARSE_SUPER:
            return True
        return any(_is_power(group, base) for base in (3, 5, 7))

    @property
    def groups(self) -> int:
        return int(-(-self.inode_count // self.inodes_per_group))

    def inode_table(self, group: int) -> tuple[int, bytes]:
        """(number of the first inode, inodes of `inode_size` bytes each) of a block group.

        Inodes at the end of the table that were never used are left out, where the group's descriptor counts them.
        """
        unused = 0
        if self._ro_compat & GROUP_CHECKSUMS:
            unused = self._descriptor(group, 0x1C, 2) | (self._descriptor(group, 0x32, 2) << 16 if self._descriptor_size >= 64 else 0)
            if self._descriptor(group, 0x12, 2) & INODES_UNINITIALIZED:
                unused = self.inodes_per_group
        count = max(0, self.inodes_per_group - unused)
        return group * self.inodes_per_group + 1, self.read(self._inode_table(group) * self.block_size, count * self.inode_size)

    def inode(self, number: int) -> Inode:
        """Read the inode with this number. DamagedFilesystem when the number is out of range."""
        if not 0 < number <= self.inode_count:
            raise DamagedFilesystem(f"it refers to inode {number}, which does not exist")
        group, index = divmod(number - 1, self.inodes_per_group)
        place = self._inode_table(group) * self.block_size + index * self.inode_size
        raw = self._cached(place, self.inode_size)
        (mode, uid, size, _, _, mtime, _, gid, links, _, flags, block, _, acl, size_high, _, acl_high, uid_high, gid_high) = (
            INODE.unpack_from(raw)
        )
        if stat.S_ISREG(mode) or self.incompat & LARGEDIR:
            size |= size_high << 32
        return Inode(
            number,
            mode,
            uid | uid_high << 16,
            gid | gid_high << 16,
            size,
            _mtime(mtime, raw),
            links,
            flags,
            block,
            acl | acl_high << 32,
            raw[128:],
        )

    # --- file content --------------------------------------------------------------------------------------------

    def data(self, inode: Inode) -> Iterator[bytes]:
        """Yield the content of an inode that is stored in blocks, in pieces of at most 1 MiB. A piece that is the object `ZEROS` is a hole.

        Content without blocks (inline data, short symbolic links) is read by tree.py.
        """
        if inode.flags & ENCRYPT_FLAG:
            raise UnsupportedFilesystem(f"the file with inode {inode.number} is encrypted")
        position = 0
        for logical, physical, count in self.runs(inode):
            start, length = logical * self.block_size, count * self.block_size
            if start >= inode.size:
                break
            yield from _holes(start - position)
            length = min(length, inode.size - start)
            if physical is None:
                yield from _holes(length)
            else:
                yield from self._reader.chunks(self.start + physical * self.block_size, length)
            position = start + length
        yield from _holes(inode.size - position)

    def runs(self, inode: Inode) -> Iterator[tuple[int, int | None, int]]:
        """Yield (first block of the file, first block of the file system or None for zeros, count), ascending; gaps are holes."""
        if inode.flags & EXTENTS_FLAG:
            return self._extents(inode.block, MAX_TREE_LEVELS)
        return _joined(self._indirect(inode))

    def tree_blocks(self, inode: Inode) -> Iterator[tuple[int, int]]:
        """Yield the blocks of an inode's extent tree outside the inode, as runs of (block, 1)."""
        return self._tree_blocks(inode.block, MAX_TREE_LEVELS)

    def _tree_blocks(self, node: bytes, levels: int) -> Iterator[tuple[int, int]]:
        _, entries, _, depth = struct.unpack_from("<4H", node)
        if depth and levels:
            for index in range(1, entries + 1):
                _, low, high = EXTENT_INDEX.unpack_from(node, index * 12)
                yield low | high << 32, 1
                yield from self._tree_blocks(self.read_block(low | high << 32), levels - 1)

    def _extents(self, node: bytes, levels: int) -> Iterator[tuple[int, int | None, int]]:
        """Yield the runs below a node of an extent tree (section 4.3.1, "Extent Tree")."""
        magic, entries, _, depth = struct.unpack_from("<4H", node)
        if magic != EXTENT_MAGIC or levels == 0 or (entries + 1) * 12 > len(node):
            raise DamagedFilesystem("an extent tree has an invalid node")
        for index in range(1, entries + 1):
            if depth:
                _, low, high = EXTENT_INDEX.unpack_from(node, index * 12)
                yield from self._extents(self.read_block(low | high << 32), levels - 1)
                continue
            logical, length, high, low = EXTENT.unpack_from(node, index * 12)
            unwritten = length > UNWRITTEN
            yield logical, None if unwritten else low | high << 32, length - UNWRITTEN if unwritten else length

    def _indirect(self, inode: Inode) -> Iterator[tuple[int, int]]:
        """Yield (block of the file, block of the file system) from the block map of ext2 and ext3.

        Section 4.3.1, "Direct/Indirect Block Addressing".
        """
        pointers = struct.unpack("<15I", inode.block)
        yield from ((index, block) for index, block in enumerate(pointers[:12]) if block)
        per_block = self.block_size // 4
        logical = 12
        for level, block in enumerate(pointers[12:], start=1):
            if block:
                yield from self._indirect_block(block, level, logical)
            logical += per_block**level

    def _indirect_block(self, block: int, level: int, logical: int) -> Iterator[tuple[int, int]]:
        per_block = self.block_size // 4
        for index, pointer in enumerate(struct.unpack(f"<{per_block}I", self.read_block(block))):
            if not pointer:
                continue
            if level == 1:
                yield logical + index, pointer
            else:
                yield from self._indirect_block(pointer, level - 1, logical + index * per_block ** (level - 1))


def _mtime(seconds: int, raw: bytes) -> int:
    """Seconds since 1970: 32 signed bits, and two more in i_mtime_extra (section 4.2, "Inode Timestamps")."""
    signed = seconds - (1 << 32) if seconds >= 1 << 31 else seconds
    if len(raw) < 0x8C or struct.unpack_from("<H", raw, 0x80)[0] < 0x8C - 0x80:
        return signed
    (extra,) = struct.unpack_from("<I", raw, 0x88)
    return int(signed + ((extra & 3) << 32))


def _joined(blocks: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int | None, int]]:
    """Join single blocks into runs."""
    first, place, count = 0, 0, 0
    for logical, physical in blocks:
        if count and logical == first + count and physical == place + count:
            count += 1
            continue
        if count:
            yield first, place, count
        first, place, count = logical, physical, 1
    if count:
        yield first, place, count


def _holes(length: int) -> Iterator[bytes]:
    """Yield `length` zeros in pieces of at most 1 MiB."""
    while length > 0:
        yield ZEROS if length >= CHUNK else ZEROS[:length]
        length -= CHUNK


def _is_power(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1
