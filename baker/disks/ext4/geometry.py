"""The fixed parts of an ext4 file system, for writing one: superblock, group descriptors, bitmaps, inode tables, journal, checksums.

What is here is decided when a file system is made or grown, and stays where it is when its files are laid out again (ext4lay.py).
Format: the Linux kernel's Documentation/filesystems/ext4, sections 3.1 "Layout", 3.2 "Block Group Descriptors", 3.4 "Bitmaps",
4.1 "Super Block", 4.6 "Journal" and "Checksums".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from baker.disks.ext4.crc32c import ALL_ONES, crc32c
from baker.disks.ext4.reader import (  # fmt: skip
    BIT64,
    CSUM_SEED,
    EXTENTS,
    FILETYPE,
    FLEX_BG,
    LARGEDIR,
    META_BG,
    RECOVER,
    Ext4,
    UnsupportedFilesystem,
)
from baker.disks.extents import Run

SUPERBLOCK = 1024  # its offset in the file system, and its size
HAS_JOURNAL, EXT_ATTR, RESIZE_INODE, DIR_INDEX, SPARSE_SUPER2, ORPHAN_FILE = 0x4, 0x8, 0x10, 0x20, 0x200, 0x1000  # s_feature_compat
SPARSE_SUPER, LARGE_FILE, HUGE_FILE, GDT_CSUM, DIR_NLINK, EXTRA_ISIZE, METADATA_CSUM = 0x1, 0x2, 0x8, 0x10, 0x20, 0x40, 0x400
COMPAT = HAS_JOURNAL | EXT_ATTR | RESIZE_INODE | DIR_INDEX | SPARSE_SUPER2 | ORPHAN_FILE
INCOMPAT = FILETYPE | EXTENTS | BIT64 | FLEX_BG | CSUM_SEED | LARGEDIR
RO_COMPAT = SPARSE_SUPER | LARGE_FILE | HUGE_FILE | GDT_CSUM | DIR_NLINK | EXTRA_ISIZE | METADATA_CSUM
WORDS = {
    "compat": {0x1: "dir_prealloc", 0x2: "imagic", 0x400: "fast_commit", 0x800: "stable_inodes"},
    "incompat": {
        RECOVER: "a journal that must be replayed", META_BG: "meta_bg", 0x100: "mmp", 0x400: "ea_inode", 0x8000: "inline_data",
        0x10000: "encrypt", 0x20000: "casefold",
    },
    "ro_compat": {
        0x100: "quota", 0x200: "bigalloc", 0x1000: "read-only", 0x2000: "project", 0x4000: "shared_blocks", 0x8000: "verity",
        0x10000: "files to be deleted at the next mount",
    },
}  # fmt: skip
BAD_BLOCKS, BOOT_LOADER, RESIZE = 1, 5, 7  # inodes with a fixed meaning (section 4.2, "Special inodes")
ZEROED = 0x4  # bg_flags: the inode table is written, so nobody has to
COUNTS = ((0x0C, 0x2C), (0x0E, 0x2E), (0x10, 0x30), (0x1C, 0x32))  # low and high halves in a descriptor
BITMAP_SUMS = ((0x18, 0x38), (0x1A, 0x3A))
JBD2_MAGIC, JBD2_SUPERBLOCKS = 0xC03B3998, (3, 4)
JBD2_CSUM = 0x8 | 0x10  # journal features: checksums of version 2 and 3
DIRECT = 12
EXTRA = 32  # i_extra_isize: all fields that have a name


@dataclass(frozen=True)
class Fixed:
    """An inode that keeps its place and content: its own bytes, the blocks that it takes up, and those of them that hold its data."""

    number: int
    raw: bytes
    blocks: tuple[Run, ...]
    data: tuple[Run, ...]


class Geometry:
    """What a file system is, without its files. UnsupportedFilesystem, naming the feature, when it has one that a new layout would lose."""

    inodes: int
    first_block: int
    per_group: int  # blocks in a group
    inodes_per_group: int
    inode_size: int
    first_inode: int
    reserved_gdt: int

    def __init__(self, fs: Ext4) -> None:
        self.fs = fs
        self.superblock = fs.read(SUPERBLOCK, SUPERBLOCK)
        (self.inodes, blocks, _, _, _, self.first_block) = struct.unpack_from("<6I", self.superblock)
        (self.per_group, _, self.inodes_per_group) = struct.unpack_from("<3I", self.superblock, 0x20)
        (self.compat, self.incompat, self.ro_compat) = struct.unpack_from("<3I", self.superblock, 0x5C)
        self._refuse()
        high = struct.unpack_from("<I", self.superblock, 0x150)[0] if self.incompat & BIT64 else 0
        self.blocks: int = blocks | high << 32
        self.block_size = fs.block_size
        (self.first_inode, self.inode_size) = struct.unpack_from("<IH", self.superblock, 0x54)
        self.descriptor_size: int = struct.unpack_from("<H", self.superblock, 0xFE)[0] if self.incompat & BIT64 else 32
        (self.reserved_gdt,) = struct.unpack_from("<H", self.superblock, 0xCE)
        self.groups = -(-(self.blocks - self.first_block) // self.per_group)
        self.gdt_blocks = -(-self.groups * self.descriptor_size // self.block_size)
        gdt = fs.read((self.first_block + 1) * self.block_size, self.groups * self.descriptor_size)
        self.descriptors = [gdt[at : at + self.descriptor_size] for at in range(0, len(gdt), self.descriptor_size)]
        self.checked = bool(self.ro_compat & METADATA_CSUM)
        (self.made,) = struct.unpack_from("<I", self.superblock, 0x108)
        if self.inode_size < 160:
            raise UnsupportedFilesystem("inodes of less than 256 bytes cannot be laid out again")
        seed = self.superblock[0x270:0x274]
        self.seed: int = struct.unpack("<I", seed)[0] if self.incompat & CSUM_SEED else crc32c(ALL_ONES, self.superblock[0x68:0x78])
        self.fixed = tuple(self._fixed())

    def _refuse(self) -> None:
        found = {"compat": self.compat & ~COMPAT, "incompat": self.incompat & ~INCOMPAT, "ro_compat": self.ro_compat & ~RO_COMPAT}
        names = [
            WORDS[kind].get(1 << bit, f"{kind} {1 << bit:#x}") for kind, bits in found.items() for bit in range(32) if bits >> bit & 1
        ]  # fmt: skip
        if not self.incompat & EXTENTS:
            names.append("no extents (ext2, ext3)")
        if names:
            raise UnsupportedFilesystem(f"a file system with {', '.join(names)} cannot be laid out again")

    # --- where things are ----------------------------------------------------------------------------------------

    def group_start(self, group: int) -> int:
        return self.first_block + group * self.per_group

    def group_blocks(self, group: int) -> int:
        return min(self.per_group, self.blocks - self.group_start(group))

    def bitmap_of(self, group: int) -> int:
        return self._address(group, 0x00, 0x20)

    def inode_bitmap_of(self, group: int) -> int:
        return self._address(group, 0x04, 0x24)

    def table_of(self, group: int) -> int:
        return self._address(group, 0x08, 0x28)

    def _address(self, group: int, low: int, high: int) -> int:
        descriptor = self.descriptors[group]
        (found,) = struct.unpack_from("<I", descriptor, low)
        return int(found | (struct.unpack_from("<I", descriptor, high)[0] << 32 if self.descriptor_size >= 64 else 0))

    @property
    def table_blocks(self) -> int:
        return -(-self.inodes_per_group * self.inode_size // self.block_size)

    def inode_place(self, number: int) -> tuple[int, int]:
        """(block, offset in it) of an inode."""
        group, index = divmod(number - 1, self.inodes_per_group)
        block, offset = divmod(index * self.inode_size, self.block_size)
        return self.table_of(group) + block, offset

    def has_super(self, group: int) -> bool:
        return self.fs.has_super(group)

    def static_runs(self) -> Iterator[Run]:
        """Every run of blocks that is not a file's own to have. Not sorted; none twice."""
        for group in range(self.groups):
            if self.has_super(group):
                yield self.group_start(group), 1 + self.gdt_blocks + self.reserved_gdt
            yield self.bitmap_of(group), 1
            yield self.inode_bitmap_of(group), 1
            yield self.table_of(group), self.table_blocks
        for fixed in self.fixed:
            yield from fixed.blocks

    # --- inodes that stay ----------------------------------------------------------------------------------------

    def _fixed(self) -> Iterator[Fixed]:
        for number, what in ((BAD_BLOCKS, "bad blocks"), (BOOT_LOADER, "a boot loader in its reserved inode")):
            inode = self.fs.inode(number)
            if inode.size or any(inode.block):
                raise UnsupportedFilesystem(f"a file system with {what} cannot be laid out again")
        if self.compat & RESIZE_INODE:
            yield self._resize_inode()
        numbers = [struct.unpack_from("<I", self.superblock, 0xE0)[0]] if self.compat & HAS_JOURNAL else []
        numbers += [struct.unpack_from("<I", self.superblock, 0x280)[0]] if self.compat & ORPHAN_FILE else []
        for number in numbers:
            inode = self.fs.inode(number)
            data = tuple((place, count) for _, place, count in self.fs.runs(inode) if place is not None)
            yield Fixed(number, self._settled(number), (*self.fs.tree_blocks(inode), *data), data)

    def _resize_inode(self) -> Fixed:
        """Its data blocks are the reserved descriptor blocks, which are static anyway; its double-indirect block is its own."""
        inode = self.fs.inode(RESIZE)
        (block,) = struct.unpack_from("<I", inode.block, (DIRECT + 1) * 4)
        return Fixed(RESIZE, self._settled(RESIZE), ((block, 1),) if block else (), ())

    def _settled(self, number: int) -> bytes:
        """The bytes of an inode that stays, its times those of the file system."""
        block, offset = self.inode_place(number)
        raw = bytearray(self.fs.read(block * self.block_size + offset, self.inode_size))
        struct.pack_into("<4I", raw, 0x08, self.made, self.made, self.made, 0)  # atime, ctime, mtime, dtime
        struct.pack_into("<I", raw, 0x64, 0)  # generation
        if struct.unpack_from("<H", raw, 0x80)[0] >= EXTRA:
            struct.pack_into("<5I", raw, 0x84, 0, 0, 0, self.made, 0)  # high parts of ctime, mtime, atime; crtime and its
        return self.sealed_inode(number, raw)

    def journal_superblock(self) -> bytes | None:
        """The journal's first block, saying that there is nothing to replay; None when there is no journal."""
        number = struct.unpack_from("<I", self.superblock, 0xE0)[0]
        fixed = next((found for found in self.fixed if found.number == number), None)
        if not self.compat & HAS_JOURNAL or fixed is None or not fixed.data:
            return None
        block = bytearray(self.fs.read(fixed.data[0][0] * self.block_size, self.block_size))
        magic, kind = struct.unpack_from(">2I", block)
        if magic != JBD2_MAGIC or kind not in JBD2_SUPERBLOCKS:
            raise UnsupportedFilesystem("the ext4 file system is damaged: its journal has no superblock")
        struct.pack_into(">III", block, 0x18, 1, 0, 0)  # sequence, start, errno
        struct.pack_into(">I", block, 0x58, 0)  # head
        block[1024:] = bytes(len(block) - 1024)
        struct.pack_into(">I", block, 0xFC, 0)
        if kind == 4 and struct.unpack_from(">I", block, 0x28)[0] & JBD2_CSUM:
            struct.pack_into(">I", block, 0xFC, crc32c(ALL_ONES, bytes(block[:1024])))
        return bytes(block)

    # --- checksums and what ends up in fixed places ----------------------------------------------------------------

    def inode_seed(self, number: int) -> int:
        """What the checksums of everything that belongs to an inode begin with; its generation is 0."""
        return crc32c(self.seed, struct.pack("<II", number, 0))

    def sealed_inode(self, number: int, raw: bytearray) -> bytes:
        """An inode with its checksum."""
        if not self.checked:
            return bytes(raw)
        wide = struct.unpack_from("<H", raw, 0x80)[0] >= 4
        struct.pack_into("<H", raw, 0x7C, 0)
        if wide:
            struct.pack_into("<H", raw, 0x82, 0)
        value = crc32c(self.inode_seed(number), bytes(raw))
        struct.pack_into("<H", raw, 0x7C, value & 0xFFFF)
        if wide:
            struct.pack_into("<H", raw, 0x82, value >> 16)
        return bytes(raw)

    def descriptor(self, group: int, counts: tuple[int, int, int, int], maps: tuple[bytes, bytes]) -> bytes:
        """A group's descriptor. `counts`: free blocks, free inodes, directories, and inodes at the end of the table that were never used;
        `maps`: the blocks of its two bitmaps."""
        raw = bytearray(self.descriptors[group])
        summed = bool(self.ro_compat & (METADATA_CSUM | GDT_CSUM))
        for (low, high), value in zip(COUNTS, counts if summed else (*counts[:3], 0), strict=True):
            self._split(raw, low, high, value)
        struct.pack_into("<H", raw, 0x12, ZEROED if summed else 0)
        sizes = (self.per_group // 8, self.inodes_per_group // 8)
        for (low, high), data, size in zip(BITMAP_SUMS, maps, sizes, strict=True):
            self._split(raw, low, high, crc32c(self.seed, data[:size]) if self.checked else 0)
        struct.pack_into("<H", raw, 0x1E, 0)
        if summed:
            struct.pack_into("<H", raw, 0x1E, self._descriptor_sum(group, bytes(raw)))
        return bytes(raw)

    def _split(self, raw: bytearray, low: int, high: int, value: int) -> None:
        struct.pack_into("<H", raw, low, value & 0xFFFF)
        if self.descriptor_size >= 64:
            struct.pack_into("<H", raw, high, value >> 16)

    def _descriptor_sum(self, group: int, raw: bytes) -> int:
        number = struct.pack("<I", group)
        if self.checked:
            return crc32c(self.seed, number, raw) & 0xFFFF
        return crc16(0xFFFF, self.superblock[0x68:0x78] + number + raw[:0x1E] + raw[0x20:])

    def settled_superblock(self, group: int, *, free_blocks: int, free_inodes: int, epoch: int) -> bytes:
        """The superblock, or a group's copy of it, of a file system that was unmounted at `epoch` and never mounted since."""
        raw = bytearray(self.superblock)
        struct.pack_into("<II", raw, 0x0C, free_blocks & ALL_ONES, free_inodes)
        if self.incompat & BIT64:
            struct.pack_into("<I", raw, 0x158, free_blocks >> 32)
        struct.pack_into("<IIH", raw, 0x2C, 0, epoch, 0)  # last mount, last write, mounts since the last check
        struct.pack_into("<H", raw, 0x3A, 1)  # clean
        struct.pack_into("<I", raw, 0x40, epoch)  # last check
        struct.pack_into("<H", raw, 0x5A, group)
        raw[0x88:0xC8] = bytes(64)  # last mounted on
        struct.pack_into("<I", raw, 0xE8, 0)  # orphans
        struct.pack_into("<Q", raw, 0x178, 0)  # kilobytes written
        raw[0x194:0x200] = bytes(0x200 - 0x194)  # errors
        raw[0x274:0x276] = bytes(2)
        raw[0x277:0x27C] = bytes(5)  # high bytes of those times
        struct.pack_into("<I", raw, 0x3FC, 0)
        if self.checked:
            struct.pack_into("<I", raw, 0x3FC, crc32c(ALL_ONES, bytes(raw[:0x3FC])))
        return bytes(raw)

    def bitmap(self, size: int, runs: Iterable[Run]) -> bytes:
        """A bitmap's block: bits of `runs` are set, and all from `size` on, which are past the end."""
        return _bits(self.block_size, [*runs, (size, self.block_size * 8 - size)])


def _bits(length: int, runs: Iterable[Run]) -> bytes:
    value = 0
    for start, count in runs:
        value |= ((1 << count) - 1) << start
    return value.to_bytes(length, "little")


def crc16(register: int, data: bytes) -> int:
    """CRC-16 with the polynomial 0xA001, as the checksums of uninit_bg are made."""
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0xA001 if register & 1 else 0)
    return register
