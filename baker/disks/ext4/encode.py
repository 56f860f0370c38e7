"""Inodes, directories, extended attributes and extents as ext4 stores them: pure functions from values to bytes.

Where the format leaves a choice, there is one here, so that equal values give equal bytes. Format: the Linux kernel's
Documentation/filesystems/ext4, sections 4.2 "Index Nodes", 4.3.1 "Extent Tree", 4.4 "Directory Entries", 4.5 "Extended Attributes".
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from baker.disks.ext4.crc32c import ALL_ONES, crc32c
from baker.disks.ext4.geometry import EXTRA, Geometry
from baker.disks.ext4.reader import EXTENT, EXTENT_INDEX, EXTENT_MAGIC, EXTENTS_FLAG, UnsupportedFilesystem
from baker.disks.ext4.tree import INLINE_SIZE, XATTR_ENTRY, XATTR_MAGIC

KEPT_FLAGS = 0x200340FF | 0x8000  # what chattr(1) sets and this layout carries: sync, immutable, append, nodump, noatime, ...
DROPPED_FLAGS = 0x1000 | 0x40000 | EXTENTS_FLAG | 0x400000  # how blocks are found, which the new layout decides anew
IN_INODE = 4  # extents
IN_BLOCK_HEAD = 12
LONGEST_RUN = 32768  # blocks in one extent
TAIL = 12  # of a directory's block: the checksum, looking like an entry
TYPES = {stat.S_IFREG: 1, stat.S_IFDIR: 2, stat.S_IFCHR: 3, stat.S_IFBLK: 4, stat.S_IFIFO: 5, stat.S_IFSOCK: 6, stat.S_IFLNK: 7}
Attribute = tuple[int, bytes, bytes]  # number of the name's prefix, rest of the name, value
Extent = tuple[int, int, int]  # first block of the file, first block of the disk, blocks


@dataclass(frozen=True, slots=True)
class Metadata:
    """What an inode says of a file, but for where its bytes are. `device`: (major, minor)."""

    mode: int
    uid: int
    gid: int
    mtime: int
    links: int
    size: int
    flags: int
    device: tuple[int, int] | None = None


def kept_flags(flags: int, path: str) -> int:
    """Those of an inode's flags that the new layout carries. UnsupportedFilesystem for one that it would lose."""
    lost = flags & ~(KEPT_FLAGS | DROPPED_FLAGS)
    if lost:
        raise UnsupportedFilesystem(f"{path} has a flag that cannot be laid out again: {lost:#x}")
    return flags & KEPT_FLAGS


@dataclass(frozen=True, slots=True)
class Body:
    """What else is in an inode. `block`: its 60 bytes of extents, link target or device; `sectors`: units of 512 bytes that it takes up
    elsewhere; `xattrs`: the attributes in the inode itself."""

    block: bytes = b""
    extents: bool = False
    sectors: int = 0
    xattrs: bytes = b""
    xattr_block: int = 0


def encode_inode(geometry: Geometry, number: int, data: Metadata, body: Body) -> bytes:
    """An inode. All its times are its mtime."""
    low, extra = data.mtime & ALL_ONES, (data.mtime - _signed(data.mtime)) >> 32 & 3
    raw = bytearray(geometry.inode_size)
    struct.pack_into(
        "<HHIIIIIHHII", raw, 0, data.mode, data.uid & 0xFFFF, data.size & ALL_ONES, low, low, low, 0, data.gid & 0xFFFF, data.links,
        body.sectors & ALL_ONES, data.flags | EXTENTS_FLAG * body.extents,
    )  # fmt: skip
    raw[0x28:0x64] = body.block.ljust(60, b"\0")
    struct.pack_into("<III", raw, 0x64, 0, body.xattr_block & ALL_ONES, data.size >> 32)
    struct.pack_into("<HHHH", raw, 0x74, body.sectors >> 32, body.xattr_block >> 32, data.uid >> 16, data.gid >> 16)
    struct.pack_into("<HHIIIII", raw, 0x80, EXTRA, 0, extra, extra, extra, low, extra)
    raw[0x80 + EXTRA : 0x80 + EXTRA + len(body.xattrs)] = body.xattrs
    return geometry.sealed_inode(number, raw)


def _signed(seconds: int) -> int:
    low = seconds & ALL_ONES
    return low - (1 << 32) if low >= 1 << 31 else low


def device_body(device: tuple[int, int]) -> bytes:
    """i_block of a device node: the old 16-bit number where it fits, else the new one in the second word."""
    major, minor = device
    if major < 256 and minor < 256:
        return struct.pack("<II", major << 8 | minor, 0)
    return struct.pack("<II", 0, minor & 0xFF | major << 8 | (minor & ~0xFF) << 12)


def inline_target(target: bytes) -> bool:
    """Whether a symbolic link's target lies in the inode."""
    return len(target) < INLINE_SIZE


# --- extended attributes -----------------------------------------------------------------------------------------------


def encode_xattrs(geometry: Geometry, attributes: Iterable[Attribute], path: str) -> tuple[bytes, Callable[[int], bytes] | None]:
    """(bytes in the inode, None) when all fit there, else (nothing, the block that holds them, given its number)."""
    ordered = sorted(attributes, key=lambda each: (each[0], len(each[1]), each[1]))
    if not ordered:
        return b"", None
    room = geometry.inode_size - 0x80 - EXTRA
    inside = _attribute_area(ordered, room - 4, 0, hashed=False)
    if inside is not None:
        return struct.pack("<I", XATTR_MAGIC) + inside, None
    area = _attribute_area(ordered, geometry.block_size - 32, 32, hashed=True)
    if area is None:
        raise UnsupportedFilesystem(f"the extended attributes of {path} do not fit into one block")
    total = 0
    for index, name, value in ordered:
        total = (total << 16 ^ total >> 16 ^ _attribute_hash(index, name, value)) & ALL_ONES

    def block(number: int) -> bytes:
        head = struct.pack("<5I12x", XATTR_MAGIC, 1, 1, total, 0)
        checksum = crc32c(geometry.seed, struct.pack("<Q", number), head, area) if geometry.checked else 0
        return struct.pack("<5I12x", XATTR_MAGIC, 1, 1, total, checksum) + area

    return b"", block


def _attribute_area(attributes: Sequence[Attribute], room: int, base: int, *, hashed: bool) -> bytes | None:
    """Entries from the front, values from the back, offsets counted from `base` before it; None when that is more than `room` bytes."""
    sizes = (16 + (len(name) + 3 & ~3) + (len(value) + 3 & ~3) for _, name, value in attributes)
    if sum(sizes) + 4 > room:  # four zeros end the entries
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
    """e_hash (fs/ext4/xattr.c, ext4_xattr_hash_entry)."""
    total = 0
    for byte in name:
        total = (total << 5 ^ total >> 27 ^ byte) & ALL_ONES
    padded = value + bytes(-len(value) % 4)
    for (word,) in struct.iter_unpack("<I", padded):
        total = (total << 16 ^ total >> 16 ^ word) & ALL_ONES
    return total


# --- directories -------------------------------------------------------------------------------------------------------


def directory_blocks(
    geometry: Geometry, number: int, parent: int, entries: Iterable[tuple[bytes, int, int]], *, at_least: int = 1
) -> bytes:
    """All blocks of a directory; `entries` are (name, inode, mode), in the order in which they are to stand."""
    size = geometry.block_size - (TAIL if geometry.checked else 0)
    blocks: list[list[tuple[bytes, int, int]]] = [[(b".", number, stat.S_IFDIR), (b"..", parent, stat.S_IFDIR)]]
    used = 24
    for entry in entries:
        needed = _entry_size(entry[0])
        if used + needed > size:
            blocks.append([])
            used = 0
        blocks[-1].append(entry)
        used += needed
    blocks += [[] for _ in range(at_least - len(blocks))]
    return b"".join(_directory_block(geometry, number, block, size) for block in blocks)


def _entry_size(name: bytes) -> int:
    return (8 + len(name) + 3) & ~3


def _directory_block(geometry: Geometry, number: int, entries: Sequence[tuple[bytes, int, int]], size: int) -> bytes:
    block, position = bytearray(geometry.block_size), 0
    for index, (name, inode, mode) in enumerate(entries):
        length = _entry_size(name) if index < len(entries) - 1 else size - position
        struct.pack_into("<IHBB", block, position, inode, length, len(name), TYPES[stat.S_IFMT(mode)])
        block[position + 8 : position + 8 + len(name)] = name
        position += length
    if not entries:
        struct.pack_into("<IHBB", block, 0, 0, size, 0, 0)
    if geometry.checked:
        value = crc32c(geometry.inode_seed(number), bytes(block[:size]))
        struct.pack_into("<IHBBI", block, size, 0, TAIL, 0, 0xDE, value)
    return bytes(block)


# --- extents -----------------------------------------------------------------------------------------------------------


def split_extents(extents: Iterable[Extent]) -> list[Extent]:
    """Extents of at most the longest length, neighbours joined."""
    joined: list[Extent] = []
    for logical, place, count in extents:
        if joined and joined[-1][0] + joined[-1][2] == logical and joined[-1][1] + joined[-1][2] == place:
            joined[-1] = (joined[-1][0], joined[-1][1], joined[-1][2] + count)
        else:
            joined.append((logical, place, count))
    return [
        (logical + at, place + at, min(LONGEST_RUN, count - at)) for logical, place, count in joined for at in range(0, count, LONGEST_RUN)
    ]  # fmt: skip


def tree_size(geometry: Geometry, extents: int) -> int:
    """How many blocks an extent tree takes besides the inode."""
    total, level, room = 0, extents, _per_block(geometry)
    while level > IN_INODE:
        level = -(-level // room)
        total += level
    return total


def encode_extents(geometry: Geometry, number: int, extents: Sequence[Extent], blocks: Sequence[int]) -> tuple[bytes, dict[int, bytes]]:
    """(i_block, tree blocks by their number) for `extents` in order; `blocks` are `tree_size` free ones."""
    free, written, room = iter(blocks), dict[int, bytes](), _per_block(geometry)
    level = [EXTENT.pack(logical, count, place >> 32, place & ALL_ONES) for logical, place, count in extents]
    depth = 0
    while len(level) > IN_INODE:
        above = []
        for start in range(0, len(level), room):
            part, place = level[start : start + room], next(free)
            written[place] = _tree_block(geometry, number, part, room, depth)
            (first,) = struct.unpack_from("<I", part[0])
            above.append(EXTENT_INDEX.pack(first, place & ALL_ONES, place >> 32))
        level, depth = above, depth + 1
    return struct.pack("<4HI", EXTENT_MAGIC, len(level), IN_INODE, depth, 0) + b"".join(level), written


def _per_block(geometry: Geometry) -> int:
    return (geometry.block_size - IN_BLOCK_HEAD) // 12


def _tree_block(geometry: Geometry, number: int, entries: Sequence[bytes], room: int, depth: int) -> bytes:
    block = bytearray(geometry.block_size)
    packed = struct.pack("<4HI", EXTENT_MAGIC, len(entries), room, depth, 0) + b"".join(entries)
    block[: len(packed)] = packed
    tail = IN_BLOCK_HEAD + room * 12
    if geometry.checked:
        struct.pack_into("<I", block, tail, crc32c(geometry.inode_seed(number), bytes(block[:tail])))
    return bytes(block)
