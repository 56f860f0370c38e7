"""The journal of an ext3 or ext4 file system, read to see the disk as it would be after a mount: nothing is written.

What was committed and is not in place yet is handed out instead of the blocks on the disk. Format: the Linux kernel's
Documentation/filesystems/ext4, section 4.6 "Journal (jbd2)". Numbers are big-endian.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from baker.disks.ext4.crc32c import ALL_ONES, crc32c
from baker.disks.ext4.reader import Ext4, UnsupportedFilesystem
from baker.disks.raw import RawReader

MAGIC = 0xC03B3998
DESCRIPTOR, COMMIT, SUPER_V1, SUPER_V2, REVOKE = 1, 2, 3, 4, 5
CHECKSUM_V2, CHECKSUM_V3, WIDE, REVOKES = 0x8, 0x10, 0x2, 0x1
KNOWN = CHECKSUM_V2 | CHECKSUM_V3 | WIDE | REVOKES | 0x4  # 0x4: commits may be written asynchronously
ESCAPED, SAME_UUID, LAST = 0x1, 0x2, 0x8  # flags of a tag


def replayed(reader: RawReader, start: int) -> Ext4:
    """The file system that begins at `start` as a mount would find it. UnsupportedFilesystem when its journal cannot be read."""
    fs = Ext4(reader, start)
    if not fs.needs_recovery:
        return fs
    found = Journal(fs).replay()
    patches = {start + block * fs.block_size: data for block, data in found.blocks.items()}
    return Ext4(Patched(reader, patches, fs.block_size), start, recovered=True)


class Patched(RawReader):
    """A disk with some blocks of another content: those that the journal has newer."""

    def __init__(self, below: RawReader, patches: Mapping[int, bytes], block: int) -> None:
        self.extents, self.size = below.extents, below.size
        self._below, self._patches, self._block = below, patches, block
        self._starts = sorted(patches)

    def chunks(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        end = self.size if length is None else min(offset + length, self.size)
        for piece in self._below.chunks(offset, end - offset):
            yield self._patch(offset, piece)
            offset += len(piece)

    def _patch(self, offset: int, piece: bytes) -> bytes:
        first = bisect_right(self._starts, offset - self._block)
        last = bisect_left(self._starts, offset + len(piece))
        if first == last:
            return piece
        data = bytearray(piece)
        for start in self._starts[first:last]:
            block = self._patches[start]
            begin, end = max(start, offset), min(start + len(block), offset + len(piece))
            data[begin - offset : end - offset] = block[begin - start : end - start]
        return bytes(data)


@dataclass
class Replay:
    """What the journal says of blocks of the file system: their newest committed content."""

    blocks: dict[int, bytes] = field(default_factory=dict)
    transactions: int = 0


class Journal:
    """The journal of `fs`, in the inode that its superblock names. UnsupportedFilesystem for one that cannot be read."""

    def __init__(self, fs: Ext4) -> None:
        self._fs = fs
        superblock = fs.read(1024, 1024)
        (number,) = struct.unpack_from("<I", superblock, 0xE0)
        if not number:
            raise UnsupportedFilesystem("the file system's journal is on another device")
        inode = fs.inode(number)
        self._places = [place + index for _, place, count in fs.runs(inode) for index in range(count) if place is not None]
        head = self._block(0)
        magic, kind, _, size, self._length, self._first, self._sequence, self._start = struct.unpack_from(">8I", head)
        if magic != MAGIC or kind not in (SUPER_V1, SUPER_V2) or size != fs.block_size:
            raise UnsupportedFilesystem("the ext4 file system is damaged: its journal has no superblock")
        self._compat, self._incompat = struct.unpack_from(">II", head, 0x24) if kind == SUPER_V2 else (0, 0)
        if self._incompat & ~KNOWN:
            raise UnsupportedFilesystem(f"the journal uses features that bake cannot read: {self._incompat & ~KNOWN:#x}")
        self._seed = crc32c(ALL_ONES, head[0x30:0x40])
        self._summed = bool(self._incompat & (CHECKSUM_V2 | CHECKSUM_V3))
        if self._length > len(self._places):
            raise UnsupportedFilesystem("the ext4 file system is damaged: its journal is shorter than it says")

    def replay(self) -> Replay:
        """The committed transactions that are not in place yet, in order; the first one that is not whole ends it."""
        found = Replay()
        if not self._start:
            return found
        transactions = list(self._transactions())
        revoked: dict[int, int] = {}
        for sequence, _, revokes in transactions:
            for block in revokes:
                revoked[block] = sequence
        for sequence, writes, _ in transactions:
            found.transactions += 1
            for block, data in writes:
                if revoked.get(block, -1) < sequence:
                    found.blocks[block] = data
        return found

    def _transactions(self) -> Iterator[tuple[int, list[tuple[int, bytes]], list[int]]]:
        """(sequence, writes, revoked blocks) of each whole transaction."""
        position, sequence = self._start, self._sequence
        while True:
            writes: list[tuple[int, bytes]] = []
            revokes: list[int] = []
            for _ in range(self._length):
                block = self._block(position)
                magic, kind, number = struct.unpack_from(">3I", block)
                if magic != MAGIC or number != sequence or not self._whole(kind, block):
                    return
                position = self._after(position)
                if kind == COMMIT:
                    break
                if kind == REVOKE:
                    revokes += self._revoked(block)
                elif kind == DESCRIPTOR:
                    for place, flags, checksum in self._tags(block):
                        data = self._block(position)
                        if not self._intact(number, data, checksum):
                            return
                        if flags & ESCAPED:
                            data = struct.pack(">I", MAGIC) + data[4:]
                        writes.append((place, data))
                        position = self._after(position)
                else:
                    return
            else:
                return  # it fills the whole journal and never ends
            yield sequence, writes, revokes
            sequence = (sequence + 1) & ALL_ONES

    def _block(self, index: int) -> bytes:
        if index >= len(self._places):
            raise UnsupportedFilesystem("the ext4 file system is damaged: its journal is shorter than it says")
        return self._fs.read(self._places[index] * self._fs.block_size, self._fs.block_size)

    def _after(self, position: int) -> int:
        return position + 1 if position + 1 < self._length else self._first

    def _whole(self, kind: int, block: bytes) -> bool:
        """Whether a block's checksum holds: at its end, in a commit block at 16."""
        if not self._summed:
            return True
        place = 16 if kind == COMMIT else len(block) - 4
        (wanted,) = struct.unpack_from(">I", block, place)
        return bool(crc32c(self._seed, block[:place], bytes(4), block[place + 4 :]) == wanted)

    def _intact(self, sequence: int, data: bytes, wanted: int) -> bool:
        """Whether a block of data is the one that its tag is of: a commit may have reached the disk before it."""
        if not self._summed:
            return True
        found = crc32c(self._seed, struct.pack(">I", sequence), data)
        return (found if self._incompat & CHECKSUM_V3 else found & 0xFFFF) == wanted

    def _tags(self, block: bytes) -> Iterator[tuple[int, int, int]]:
        """(block of the file system, flags, checksum) of each block that follows a descriptor."""
        position, end = 12, len(block) - (4 if self._summed else 0)
        wide = bool(self._incompat & WIDE)
        while position + 8 <= end:
            if self._incompat & CHECKSUM_V3:
                place, flags, high, checksum = struct.unpack_from(">4I", block, position)
                size = 16
            else:
                place, checksum, flags = struct.unpack_from(">IHH", block, position)
                high = struct.unpack_from(">I", block, position + 8)[0] if wide else 0
                size = (12 if wide else 8) + (2 if self._incompat & CHECKSUM_V2 else 0)  # journal_tag_bytes() of the kernel
            yield place | (high << 32 if wide else 0), flags, checksum
            position += size + (0 if flags & SAME_UUID else 16)
            if flags & LAST:
                return

    def _revoked(self, block: bytes) -> list[int]:
        (count,) = struct.unpack_from(">I", block, 12)
        size, form = (8, ">Q") if self._incompat & WIDE else (4, ">I")
        end = min(count, len(block) - (4 if self._summed else 0))
        return [struct.unpack_from(form, block, position)[0] for position in range(16, end - size + 1, size)]
