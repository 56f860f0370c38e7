"""Encoders for the inodes, directories, extended attributes and extents of ext4: pure functions from values to bytes.

Where the format leaves a choice, the encoders always make the same one, so that equal values give equal bytes. Format: the Linux
kernel's Documentation/filesystems/ext4, sections 4.2 "Index Nodes", 4.3.1 "Extent Tree", 4.4 "Directory Entries" and 4.5
"Extended Attributes".
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from baker.disks.ext4.crc32c import ALL_ONES, crc32c
from baker.disks.ext4.geometry import EXTRA_SIZE, Geometry
from baker.disks.ext4.reader import EXTENT, EXTENT_INDEX, EXTENT_MAGIC, EXTENTS_FLAG, CannotNormalize
from baker.disks.ext4.tree import INLINE_SIZE, XATTR_ENTRY, XATTR_MAGIC

PRESERVED_FLAGS = 0x200340FF | 0x8000  # attributes of chattr(1) that a new layout keeps: sync, immutable, append, nodump, noatime, ...
LAYOUT_FLAGS = 0x1000 | 0x40000 | EXTENTS_FLAG | 0x400000  # flags about how blocks are found, which the new layout sets itself
EXTENTS_IN_INODE = 4
TREE_HEADER = 12  # bytes of a block of an extent tree before its entries
MAX_EXTENT_BLOCKS = 32768
CHECKSUM_TAIL = 12  # bytes at the end of a directory block: the checksum in the form of an unused entry
TYPES = {stat.S_IFREG: 1, stat.S_IFDIR: 2, stat.S_IFCHR: 3, stat.S_IFBLK: 4, stat.S_IFIFO: 5, stat.S_IFSOCK: 6, stat.S_IFLNK: 7}
Attribute = tuple[int, bytes, bytes]  # number of the name's prefix, rest of the name, value
Extent = tuple[int, int, int]  # first block of the file, first block of the file system, number of blocks


@dataclass(frozen=True, slots=True)
class Metadata:
    """The metadata in an inode, without the location of the file's content. `mtime` in seconds since 1970, `size` in bytes."""

    mode: int
    uid: int
    gid: int
    mtime: int
    links: int
    size: int
    flags: int
    device: tuple[int, int] | None = None  # (major, minor)


def preserved_flags(flags: int, path: str) -> int:
    """The flags of an inode that a new layout keeps. CannotNormalize for a flag that it would lose."""
    lost = flags & ~(PRESERVED_FLAGS | LAYOUT_FLAGS)
    if lost:
        raise CannotNormalize(f"the file {path} has inode flags that cannot be normalized: {lost:#x}")
    return flags & PRESERVED_FLAGS


@dataclass(frozen=True, slots=True)
class Body:
    """The location of a file's content and attributes.

    `block`: i_block, up to 60 bytes of extents, link target or device number. `extents`: whether that is an extent tree.
    `sectors`: the space used outside the inode, in units of 512 bytes. `xattrs`: the attributes in the inode itself.
    `xattr_block`: the block with the attributes, or 0.
    """

    block: bytes = b""
    extents: bool = False
    sectors: int = 0
    xattrs: bytes = b""
    xattr_block: int = 0


def encode_inode(geometry: Geometry, number: int, data: Metadata, body: Body) -> bytes:
    """Encode an inode. All its times are its mtime."""
    low, extra = data.mtime & ALL_ONES, (data.mtime - _signed(data.mtime)) >> 32 & 3
    raw = bytearray(geometry.inode_size)
    struct.pack_into(
        "<HHIIIIIHHII", raw, 0, data.mode, data.uid & 0xFFFF, data.size & ALL_ONES, low, low, low, 0, data.gid & 0xFFFF, data.links,
        body.sectors & ALL_ONES, data.flags | EXTENTS_FLAG * body.extents,
    )  # fmt: skip
    raw[0x28:0x64] = body.block.ljust(60, b"\0")
    struct.pack_into("<III", raw, 0x64, 0, body.xattr_block & ALL_ONES, data.size >> 32)
    struct.pack_into("<HHHH", raw, 0x74, body.sectors >> 32, body.xattr_block >> 32, data.uid >> 16, data.gid >> 16)
    struct.pack_into("<HHIIIII", raw, 0x80, EXTRA_SIZE, 0, extra, extra, extra, low, extra)
    raw[0x80 + EXTRA_SIZE : 0x80 + EXTRA_SIZE + len(body.xattrs)] = body.xattrs
    return geometry.checksummed_inode(number, raw)


def _signed(seconds: int) -> int:
    low = seconds & ALL_ONES
    return low - (1 << 32) if low >= 1 << 31 else low


def device_body(device: tuple[int, int]) -> bytes:
    """Encode i_block of a device node: the old 16-bit number where it fits, otherwise the new one in the second word."""
    major, minor = device
    if major < 256 and minor < 256:
        return struct.pack("<II", major << 8 | minor, 0)
    return struct.pack("<II", 0, minor & 0xFF | major << 8 | (minor & ~0xFF) << 12)


def fits_in_inode(target: bytes) -> bool:
    """Whether the target of a symbolic link is stored in the inode."""
    return len(target) < INLINE_SIZE


# --- extended attributes -----------------------------------------------------------------------------------------------


def encode_xattrs(geometry: Geometry, attributes: Iterable[Attribute], path: str) -> tuple[bytes, Callable[[int], bytes] | None]:
    """Encode the extended attributes of the file at `path`. CannotNormalize when they do not fit into one block.

    Returns (bytes for the inode, None) when all fit there, otherwise (b"", a function that encodes their block, given its number).
    """
    ordered = sorted(attributes, key=lambda each: (each[0], len(each[1]), each[1]))
    if not ordered:
        return b"", None
    room = geometry.inode_size - 0x80 - EXTRA_SIZE
    inside = _attribute_area(ordered, room - 4, 0, hashed=False)
    if inside is not None:
        return struct.pack("<I", XATTR_MAGIC) + inside, None
    area = _attribute_area(ordered, geometry.block_size - 32, 32, hashed=True)
    if area is None:
        raise CannotNormalize(f"the extended attributes of the file {path} do not fit into one block")
    total = 0
    for index, name, value in ordered:
        total = (total << 16 ^ total >> 16 ^ _attribute_hash(index, name, value)) & ALL_ONES

    def block(number: int) -> bytes:
        head = struct.pack("<5I12x", XATTR_MAGIC, 1, 1, total, 0)
        checksum = crc32c(geometry.seed, struct.pack("<Q", number), head, area) if geometry.has_checksums else 0
        return struct.pack("<5I12x", XATTR_MAGIC, 1, 1, total, checksum) + area

    return b"", block


def _attribute_area(attributes: Sequence[Attribute], room: int, base: int, *, hashed: bool) -> bytes | None:
    """Encode entries from the front and values from the back of an area of `room` bytes; None when they do not fit.

    Offsets of values count from `base` bytes before the area. `hashed`: whether entries have their hash.
    """
    sizes = (16 + (len(name) + 3 & ~3) + (len(value) + 3 & ~3) for _, name, value in attributes)
    if sum(sizes) + 4 > room:  # four zero bytes end the entries
        return None
    entries, values, end = bytearray(), b"", room
    for index, name, value in attributes:
        padded = value + bytes(-len(value) % 4)
        end -= len(padded)
        values = padded + values
        offset = end + base if value else 0
        entries += XATTR_ENTRY.pack(len(name), index, offset, 0, len(value), _attribute_hash(index, name, value) if hashed else 0)
        entries += name + bytes(-len(name) % 4)
    return bytes(entries) + bytes(room - len(entries) - len(values)) + values


def _attribute_hash(index: int, name: bytes, value: bytes) -> int:
    """The field e_hash of an entry (fs/ext4/xattr.c, ext4_xattr_hash_entry)."""
    total = 0
    for byte in name:
        total = (total << 5 ^ total >> 27 ^ byte) & ALL_ONES
    padded = value + bytes(-len(value) % 4)
    for (word,) in struct.iter_unpack("<I", padded):
        total = (total << 16 ^ total >> 16 ^ word) & ALL_ONES
    return total


# --- directories -------------------------------------------------------------------------------------------------------


def directory_blocks(
    geometry: Geometry, number: int, parent: int, entries: Iterable[tuple[bytes, int, int]], *, min_blocks: int = 1
) -> bytes:
    """Encode all blocks of a directory, at least `min_blocks`.

    `number` and `parent` are the inodes of the directory and its parent. `entries` are (name, inode, mode) in the order to write.
    """
    size = geometry.block_size - (CHECKSUM_TAIL if geometry.has_checksums else 0)
    blocks: list[list[tuple[bytes, int, int]]] = [[(b".", number, stat.S_IFDIR), (b"..", parent, stat.S_IFDIR)]]
    used = 24
    for entry in entries:
        needed = _entry_size(entry[0])
        if used + needed > size:
            blocks.append([])
            used = 0
        blocks[-1].append(entry)
        used += needed
    blocks += [[] for _ in range(min_blocks - len(blocks))]
    return b"".join(_directory_block(geometry, number, block, size) for block in blocks)


def _entry_size(name: bytes) -> int:
    return (8 + len(name) + 3) & ~3


def _directory_block(geometry: Geometry, number: int, entries: Sequence[tuple[bytes, int, int]], size: int) -> bytes:
    """Encode one block of a directory, of which entries take up `size` bytes."""
    block, position = bytearray(geometry.block_size), 0
    for index, (name, inode, mode) in enumerate(entries):
        length = _entry_size(name) if index < len(entries) - 1 else size - position
        struct.pack_into("<IHBB", block, position, inode, length, len(name), TYPES[stat.S_IFMT(mode)])
        block[position + 8 : position + 8 + len(name)] = name
        position += length
    if not entries:
        struct.pack_into("<IHBB", block, 0, 0, size, 0, 0)
    if geometry.has_checksums:
        value = crc32c(geometry.checksum_seed(number), bytes(block[:size]))
        struct.pack_into("<IHBBI", block, size, 0, CHECKSUM_TAIL, 0, 0xDE, value)
    return bytes(block)


# --- extents -----------------------------------------------------------------------------------------------------------


def split_extents(extents: Iterable[Extent]) -> list[Extent]:
    """Join neighbouring extents and split those that are too long for one entry."""
    joined: list[Extent] = []
    for logical, place, count in extents:
        if joined and joined[-1][0] + joined[-1][2] == logical and joined[-1][1] + joined[-1][2] == place:
            joined[-1] = (joined[-1][0], joined[-1][1], joined[-1][2] + count)
        else:
            joined.append((logical, place, count))
    return [
        (logical + at, place + at, min(MAX_EXTENT_BLOCKS, count - at))
        for logical, place, count in joined
        for at in range(0, count, MAX_EXTENT_BLOCKS)
    ]


def tree_size(geometry: Geometry, extents: int) -> int:
    """The number of blocks that an extent tree needs outside the inode."""
    total, level, room = 0, extents, _entries_per_block(geometry)
    while level > EXTENTS_IN_INODE:
        level = -(-level // room)
        total += level
    return total


def encode_extents(geometry: Geometry, number: int, extents: Sequence[Extent], blocks: Sequence[int]) -> tuple[bytes, dict[int, bytes]]:
    """Encode the extent tree of inode `number` for `extents`, ascending; returns (i_block, content of tree blocks by block number).

    `blocks` are the numbers of `tree_size` free blocks.
    """
    free, written, room = iter(blocks), dict[int, bytes](), _entries_per_block(geometry)
    level = [EXTENT.pack(logical, count, place >> 32, place & ALL_ONES) for logical, place, count in extents]
    depth = 0
    while len(level) > EXTENTS_IN_INODE:
        above = []
        for start in range(0, len(level), room):
            part, place = level[start : start + room], next(free)
            written[place] = _tree_block(geometry, number, part, room, depth)
            (first,) = struct.unpack_from("<I", part[0])
            above.append(EXTENT_INDEX.pack(first, place & ALL_ONES, place >> 32))
        level, depth = above, depth + 1
    return struct.pack("<4HI", EXTENT_MAGIC, len(level), EXTENTS_IN_INODE, depth, 0) + b"".join(level), written


def _entries_per_block(geometry: Geometry) -> int:
    return (geometry.block_size - TREE_HEADER) // 12


def _tree_block(geometry: Geometry, number: int, entries: Sequence[bytes], room: int, depth: int) -> bytes:
    """Encode one block of an extent tree, which has room for `room` entries."""
    block = bytearray(geometry.block_size)
    packed = struct.pack("<4HI", EXTENT_MAGIC, len(entries), room, depth, 0) + b"".join(entries)
    block[: len(packed)] = packed
    tail = TREE_HEADER + room * 12
    if geometry.has_checksums:
        struct.pack_into("<I", block, tail, crc32c(geometry.checksum_seed(number), bytes(block[:tail])))
    return bytes(block)
