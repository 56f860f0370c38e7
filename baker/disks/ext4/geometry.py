"""The fixed parts of an ext4 file system, for writing one: superblock, group descriptors, bitmaps, inode tables, journal, checksums.

They are determined when the file system is created or grown, and keep their places when its files get a new layout (layout.py).
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
    CannotNormalize,
    DamagedFilesystem,
    Ext4,
)
from baker.disks.extents import Run

SUPERBLOCK = 1024  # its offset in the file system, and its size
HAS_JOURNAL, EXT_ATTR, RESIZE_INODE, DIR_INDEX, SPARSE_SUPER2, ORPHAN_FILE = 0x4, 0x8, 0x10, 0x20, 0x200, 0x1000  # s_feature_compat
SPARSE_SUPER, LARGE_FILE, HUGE_FILE, GDT_CSUM, DIR_NLINK, EXTRA_ISIZE, METADATA_CSUM = 0x1, 0x2, 0x8, 0x10, 0x20, 0x40, 0x400
COMPAT = HAS_JOURNAL | EXT_ATTR | RESIZE_INODE | DIR_INDEX | SPARSE_SUPER2 | ORPHAN_FILE
INCOMPAT = FILETYPE | EXTENTS | BIT64 | FLEX_BG | CSUM_SEED | LARGEDIR
RO_COMPAT = SPARSE_SUPER | LARGE_FILE | HUGE_FILE | GDT_CSUM | DIR_NLINK | EXTRA_ISIZE | METADATA_CSUM
FEATURE_NAMES = {
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
INODES_ZEROED = 0x4  # bg_flags: the inode table is initialized, so the kernel need not zero it
# offsets of the low and high halves of fields of a descriptor
COUNTS = ((0x0C, 0x2C), (0x0E, 0x2E), (0x10, 0x30), (0x1C, 0x32))
BITMAP_CHECKSUMS = ((0x18, 0x38), (0x1A, 0x3A))
JBD2_MAGIC, JBD2_SUPERBLOCKS = 0xC03B3998, (3, 4)
JBD2_CSUM = 0x8 | 0x10  # journal features: checksums of version 2 and 3
DIRECT = 12  # direct blocks in a block map
EXTRA_SIZE = 32  # i_extra_isize in bytes that covers all defined fields


@dataclass(frozen=True)
class Fixed:
    """An inode that keeps its place and content: its own bytes, all blocks that it uses, and those of them that hold its data."""

    number: int
    raw: bytes
    blocks: tuple[Run, ...]
    data: tuple[Run, ...]


class Geometry:
    """The parameters of a file system, without its files. CannotNormalize, naming the feature, when a new layout would lose it."""

    inodes: int
    first_block: int
    blocks_per_group: int
    inodes_per_group: int
    inode_size: int
    first_inode: int
    reserved_gdt: int

    def __init__(self, fs: Ext4) -> None:
        self.fs = fs
        self.superblock = fs.read(SUPERBLOCK, SUPERBLOCK)
        (self.inodes, blocks, _, _, _, self.first_block) = struct.unpack_from("<6I", self.superblock)
        (self.blocks_per_group, _, self.inodes_per_group) = struct.unpack_from("<3I", self.superblock, 0x20)
        (self.compat, self.incompat, self.ro_compat) = struct.unpack_from("<3I", self.superblock, 0x5C)
        self._check_features()
        high = struct.unpack_from("<I", self.superblock, 0x150)[0] if self.incompat & BIT64 else 0
        self.blocks: int = blocks | high << 32
        self.block_size = fs.block_size
        (self.first_inode, self.inode_size) = struct.unpack_from("<IH", self.superblock, 0x54)
        self.descriptor_size: int = struct.unpack_from("<H", self.superblock, 0xFE)[0] if self.incompat & BIT64 else 32
        (self.reserved_gdt,) = struct.unpack_from("<H", self.superblock, 0xCE)
        self.groups = -(-(self.blocks - self.first_block) // self.blocks_per_group)
        self.gdt_blocks = -(-self.groups * self.descriptor_size // self.block_size)
        gdt = fs.read((self.first_block + 1) * self.block_size, self.groups * self.descriptor_size)
        self.descriptors = [gdt[at : at + self.descriptor_size] for at in range(0, len(gdt), self.descriptor_size)]
        self.has_checksums = bool(self.ro_compat & METADATA_CSUM)
        (self.created,) = struct.unpack_from("<I", self.superblock, 0x108)
        if self.inode_size < 160:
            raise CannotNormalize("a file system with inodes of less than 256 bytes cannot be normalized")
        seed = self.superblock[0x270:0x274]
        self.seed: int = struct.unpack("<I", seed)[0] if self.incompat & CSUM_SEED else crc32c(ALL_ONES, self.superblock[0x68:0x78])
        self.fixed = tuple(self._fixed())

    def _check_features(self) -> None:
        unknown = {"compat": self.compat & ~COMPAT, "incompat": self.incompat & ~INCOMPAT, "ro_compat": self.ro_compat & ~RO_COMPAT}
        names = [
            FEATURE_NAMES[kind].get(1 << bit, f"{kind} {1 << bit:#x}")
            for kind, bits in unknown.items()
            for bit in range(32)
            if bits >> bit & 1
        ]
        if not self.incompat & EXTENTS:
            names.append("no extents (ext2, ext3)")
        if names:
            raise CannotNormalize(f"a file system with {', '.join(names)} cannot be normalized")

    # --- locations of the fixed parts ----------------------------------------------------------------------------

    def group_start(self, group: int) -> int:
        return self.first_block + group * self.blocks_per_group

    def group_blocks(self, group: int) -> int:
        return min(self.blocks_per_group, self.blocks - self.group_start(group))

    def block_bitmap_of(self, group: int) -> int:
        return self._address(group, 0x00, 0x20)

    def inode_bitmap_of(self, group: int) -> int:
        return self._address(group, 0x04, 0x24)

    def table_of(self, group: int) -> int:
        return self._address(group, 0x08, 0x28)

    def _address(self, group: int, low: int, high: int) -> int:
        """A block number whose halves are at `low` and `high` in the descriptor of a group."""
        descriptor = self.descriptors[group]
        (address,) = struct.unpack_from("<I", descriptor, low)
        return int(address | (struct.unpack_from("<I", descriptor, high)[0] << 32 if self.descriptor_size >= 64 else 0))

    @property
    def table_blocks(self) -> int:
        return -(-self.inodes_per_group * self.inode_size // self.block_size)

    def inode_place(self, number: int) -> tuple[int, int]:
        """(block, offset in it in bytes) of an inode."""
        group, index = divmod(number - 1, self.inodes_per_group)
        block, offset = divmod(index * self.inode_size, self.block_size)
        return self.table_of(group) + block, offset

    def has_super(self, group: int) -> bool:
        return self.fs.has_super(group)

    def static_runs(self) -> Iterator[Run]:
        """Yield every run of blocks that no file may use; unsorted, without duplicates."""
        for group in range(self.groups):
            if self.has_super(group):
                yield self.group_start(group), 1 + self.gdt_blocks + self.reserved_gdt
            yield self.block_bitmap_of(group), 1
            yield self.inode_bitmap_of(group), 1
            yield self.table_of(group), self.table_blocks
        for fixed in self.fixed:
            yield from fixed.blocks

    # --- inodes with a fixed place -------------------------------------------------------------------------------

    def _fixed(self) -> Iterator[Fixed]:
        for number, what in ((BAD_BLOCKS, "bad blocks"), (BOOT_LOADER, "a boot loader in its reserved inode")):
            inode = self.fs.inode(number)
            if inode.size or any(inode.block):
                raise CannotNormalize(f"a file system with {what} cannot be normalized")
        if self.compat & RESIZE_INODE:
            yield self._resize_inode()
        numbers = [struct.unpack_from("<I", self.superblock, 0xE0)[0]] if self.compat & HAS_JOURNAL else []
        numbers += [struct.unpack_from("<I", self.superblock, 0x280)[0]] if self.compat & ORPHAN_FILE else []
        for number in numbers:
            inode = self.fs.inode(number)
            data = tuple((place, count) for _, place, count in self.fs.runs(inode) if place is not None)
            yield Fixed(number, self._normalized_inode(number), (*self.fs.tree_blocks(inode), *data), data)

    def _resize_inode(self) -> Fixed:
        """The inode whose data blocks are the reserved descriptor blocks, already static; only its double-indirect block is its own."""
        inode = self.fs.inode(RESIZE)
        (block,) = struct.unpack_from("<I", inode.block, (DIRECT + 1) * 4)
        return Fixed(RESIZE, self._normalized_inode(RESIZE), ((block, 1),) if block else (), ())

    def _normalized_inode(self, number: int) -> bytes:
        """The bytes of an inode that keeps its place, with the creation time of the file system as its times."""
        block, offset = self.inode_place(number)
        raw = bytearray(self.fs.read(block * self.block_size + offset, self.inode_size))
        struct.pack_into("<4I", raw, 0x08, self.created, self.created, self.created, 0)  # atime, ctime, mtime, dtime
        struct.pack_into("<I", raw, 0x64, 0)  # generation
        # the extra parts of ctime, mtime and atime, then crtime with its extra part
        if struct.unpack_from("<H", raw, 0x80)[0] >= EXTRA_SIZE:
            struct.pack_into("<5I", raw, 0x84, 0, 0, 0, self.created, 0)
        return self.checksummed_inode(number, raw)

    def journal_superblock(self) -> bytes | None:
        """The first block of an empty journal; None when the file system has no journal."""
        number = struct.unpack_from("<I", self.superblock, 0xE0)[0]
        fixed = next((each for each in self.fixed if each.number == number), None)
        if not self.compat & HAS_JOURNAL or fixed is None or not fixed.data:
            return None
        block = bytearray(self.fs.read(fixed.data[0][0] * self.block_size, self.block_size))
        magic, kind = struct.unpack_from(">2I", block)
        if magic != JBD2_MAGIC or kind not in JBD2_SUPERBLOCKS:
            raise DamagedFilesystem("its journal has no superblock")
        struct.pack_into(">III", block, 0x18, 1, 0, 0)  # sequence, start, errno
        struct.pack_into(">I", block, 0x58, 0)  # head
        block[1024:] = bytes(len(block) - 1024)
        struct.pack_into(">I", block, 0xFC, 0)
        if kind == 4 and struct.unpack_from(">I", block, 0x28)[0] & JBD2_CSUM:
            struct.pack_into(">I", block, 0xFC, crc32c(ALL_ONES, bytes(block[:1024])))
        return bytes(block)

    # --- checksums, descriptors, superblocks, bitmaps ----------------------------------------------------------------

    def checksum_seed(self, number: int) -> int:
        """The register that all checksums of an inode's structures start from; its generation is 0."""
        return crc32c(self.seed, struct.pack("<II", number, 0))

    def checksummed_inode(self, number: int, raw: bytearray) -> bytes:
        """The inode with its checksum filled in, if the file system has checksums."""
        if not self.has_checksums:
            return bytes(raw)
        wide = struct.unpack_from("<H", raw, 0x80)[0] >= 4
        struct.pack_into("<H", raw, 0x7C, 0)
        if wide:
            struct.pack_into("<H", raw, 0x82, 0)
        value = crc32c(self.checksum_seed(number), bytes(raw))
        struct.pack_into("<H", raw, 0x7C, value & 0xFFFF)
        if wide:
            struct.pack_into("<H", raw, 0x82, value >> 16)
        return bytes(raw)

    def descriptor(self, group: int, counts: tuple[int, int, int, int], maps: tuple[bytes, bytes]) -> bytes:
        """Encode the descriptor of a group.

        `counts`: free blocks, free inodes, directories, and inodes at the end of the table that were never used.
        `maps`: the block bitmap and the inode bitmap.
        """
        raw = bytearray(self.descriptors[group])
        checksummed = bool(self.ro_compat & (METADATA_CSUM | GDT_CSUM))
        for (low, high), value in zip(COUNTS, counts if checksummed else (*counts[:3], 0), strict=True):
            self._put_halves(raw, low, high, value)
        struct.pack_into("<H", raw, 0x12, INODES_ZEROED if checksummed else 0)
        sizes = (self.blocks_per_group // 8, self.inodes_per_group // 8)
        for (low, high), data, size in zip(BITMAP_CHECKSUMS, maps, sizes, strict=True):
            self._put_halves(raw, low, high, crc32c(self.seed, data[:size]) if self.has_checksums else 0)
        struct.pack_into("<H", raw, 0x1E, 0)
        if checksummed:
            struct.pack_into("<H", raw, 0x1E, self._descriptor_checksum(group, bytes(raw)))
        return bytes(raw)

    def _put_halves(self, raw: bytearray, low: int, high: int, value: int) -> None:
        """Write a value of 32 bits as two halves; short descriptors hold only the low one."""
        struct.pack_into("<H", raw, low, value & 0xFFFF)
        if self.descriptor_size >= 64:
            struct.pack_into("<H", raw, high, value >> 16)

    def _descriptor_checksum(self, group: int, raw: bytes) -> int:
        number = struct.pack("<I", group)
        if self.has_checksums:
            return crc32c(self.seed, number, raw) & 0xFFFF
        return crc16(0xFFFF, self.superblock[0x68:0x78] + number + raw[:0x1E] + raw[0x20:])

    def clean_superblock(self, group: int, *, free_blocks: int, free_inodes: int, epoch: int) -> bytes:
        """Encode the superblock, or a group's copy of it, of a file system that was cleanly unmounted at `epoch` (seconds since 1970)."""
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
        raw[0x194:0x200] = bytes(0x200 - 0x194)  # error records
        raw[0x274:0x276] = bytes(2)  # high bytes of the times of the last write and mount
        raw[0x277:0x27C] = bytes(5)  # high byte of the time of the last check; high bytes of error times; error codes
        struct.pack_into("<I", raw, 0x3FC, 0)
        if self.has_checksums:
            struct.pack_into("<I", raw, 0x3FC, crc32c(ALL_ONES, bytes(raw[:0x3FC])))
        return bytes(raw)

    def bitmap(self, size: int, runs: Iterable[Run]) -> bytes:
        """Encode the block of a bitmap: the bits of `runs` are set, and all bits from `size` on, which are past the end."""
        return _bits(self.block_size, [*runs, (size, self.block_size * 8 - size)])


def _bits(length: int, runs: Iterable[Run]) -> bytes:
    value = 0
    for start, count in runs:
        value |= ((1 << count) - 1) << start
    return value.to_bytes(length, "little")


def crc16(register: int, data: bytes) -> int:
    """CRC-16 with the reflected polynomial 0xA001, used for the descriptor checksums of the feature uninit_bg (gdt_csum)."""
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0xA001 if register & 1 else 0)
    return register
