"""Reader for the journal of an ext3 or ext4 file system, which shows the disk as a mount would leave it, without writing.

Blocks that were committed to the journal but are not in place yet are read from the journal. Format: the Linux kernel's
Documentation/filesystems/ext4, section 4.6 "Journal (jbd2)". Numbers are big-endian.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from baker.disks.ext4.crc32c import ALL_ONES, crc32c
from baker.disks.ext4.reader import DamagedFilesystem, Ext4, UnsupportedFilesystem
from baker.disks.raw import RawReader

MAGIC = 0xC03B3998
DESCRIPTOR, COMMIT, SUPER_V1, SUPER_V2, REVOKE = 1, 2, 3, 4, 5
REVOKE_RECORDS, BIT64, ASYNC_COMMIT, CHECKSUM_V2, CHECKSUM_V3 = 0x1, 0x2, 0x4, 0x8, 0x10  # s_feature_incompat
KNOWN = REVOKE_RECORDS | BIT64 | ASYNC_COMMIT | CHECKSUM_V2 | CHECKSUM_V3
ESCAPED, SAME_UUID, LAST = 0x1, 0x2, 0x8  # flags of a tag


def open_replayed(reader: RawReader, start: int) -> Ext4:
    """Open the file system that begins at byte `start`, as if its journal had been replayed.

    UnsupportedFilesystem when the journal cannot be read.
    """
    fs = Ext4(reader, start)
    if not fs.needs_recovery:
        return fs
    replay = Journal(fs).replay()
    patches = {start + block * fs.block_size: data for block, data in replay.blocks.items()}
    return Ext4(PatchedReader(reader, patches, fs.block_size), start, recovered=True)


class PatchedReader(RawReader):
    """A disk of which some blocks are replaced. `patches`: content by offset in bytes; `block`: their length in bytes."""

    def __init__(self, disk: RawReader, patches: Mapping[int, bytes], block: int) -> None:
        self.extents, self.size = disk.extents, disk.size
        self._disk, self._patches, self._block = disk, patches, block
        self._starts = sorted(patches)

    def chunks(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        end = self.size if length is None else min(offset + length, self.size)
        for piece in self._disk.chunks(offset, end - offset):
            yield self._patch(offset, piece)
            offset += len(piece)

    def _patch(self, offset: int, piece: bytes) -> bytes:
        """The bytes `piece` at `offset` of the disk, with the patches in that range applied."""
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
    """The latest committed content of blocks of the file system, by block number, and the number of committed transactions."""

    blocks: dict[int, bytes] = field(default_factory=dict)
    transactions: int = 0


class Journal:
    """The journal of `fs`, in the inode that its superblock names. UnsupportedFilesystem when it cannot be read."""

    def __init__(self, fs: Ext4) -> None:
        self._fs = fs
        superblock = fs.read(1024, 1024)
        (number,) = struct.unpack_from("<I", superblock, 0xE0)
        if not number:
            raise UnsupportedFilesystem("the journal of the file system is on another device")
        inode = fs.inode(number)
        self._blocks = [place + index for _, place, count in fs.runs(inode) for index in range(count) if place is not None]
        head = self._block(0)
        magic, kind, _, size, self._length, self._first, self._sequence, self._start = struct.unpack_from(">8I", head)
        if magic != MAGIC or kind not in (SUPER_V1, SUPER_V2) or size != fs.block_size:
            raise DamagedFilesystem("its journal has no superblock")
        self._incompat: int = struct.unpack_from(">I", head, 0x28)[0] if kind == SUPER_V2 else 0
        if self._incompat & ~KNOWN:
            raise UnsupportedFilesystem(f"the journal has features that bake cannot read: {self._incompat & ~KNOWN:#x}")
        self._seed = crc32c(ALL_ONES, head[0x30:0x40])
        self._has_checksums = bool(self._incompat & (CHECKSUM_V2 | CHECKSUM_V3))
        if self._length > len(self._blocks):
            raise DamagedFilesystem("its journal is shorter than its superblock says")

    def replay(self) -> Replay:
        """Apply the committed transactions that are not in place yet, in order, up to the first incomplete one."""
        result = Replay()
        if not self._start:
            return result
        transactions = list(self._transactions())
        revoked: dict[int, int] = {}
        for sequence, _, revokes in transactions:
            for block in revokes:
                revoked[block] = sequence
        for sequence, writes, _ in transactions:
            result.transactions += 1
            for block, data in writes:
                if revoked.get(block, -1) < sequence:
                    result.blocks[block] = data
        return result

    def _transactions(self) -> Iterator[tuple[int, list[tuple[int, bytes]], list[int]]]:
        """Yield (sequence number, writes, revoked blocks) of each complete transaction; a write is (block number, content)."""
        position, sequence = self._start, self._sequence
        while True:
            writes: list[tuple[int, bytes]] = []
            revokes: list[int] = []
            for _ in range(self._length):
                block = self._block(position)
                magic, kind, number = struct.unpack_from(">3I", block)
                if magic != MAGIC or number != sequence or not self._block_checksum_holds(kind, block):
                    return
                position = self._after(position)
                if kind == COMMIT:
                    break
                if kind == REVOKE:
                    revokes += self._revoked_blocks(block)
                elif kind == DESCRIPTOR:
                    for place, flags, checksum in self._tags(block):
                        data = self._block(position)
                        if not self._data_checksum_holds(number, data, checksum):
                            return
                        if flags & ESCAPED:
                            data = struct.pack(">I", MAGIC) + data[4:]
                        writes.append((place, data))
                        position = self._after(position)
                else:
                    return
            else:
                return  # the transaction fills the journal without a commit block
            yield sequence, writes, revokes
            sequence = (sequence + 1) & ALL_ONES

    def _block(self, index: int) -> bytes:
        """Read a block of the journal."""
        if index >= len(self._blocks):
            raise DamagedFilesystem("its journal is shorter than its superblock says")
        return self._fs.read(self._blocks[index] * self._fs.block_size, self._fs.block_size)

    def _after(self, position: int) -> int:
        """The block of the journal after `position`; the journal is a ring."""
        return position + 1 if position + 1 < self._length else self._first

    def _block_checksum_holds(self, kind: int, block: bytes) -> bool:
        """Whether a metadata block matches its checksum, which is in its last 4 bytes, in a commit block at offset 16."""
        if not self._has_checksums:
            return True
        place = 16 if kind == COMMIT else len(block) - 4
        (expected,) = struct.unpack_from(">I", block, place)
        return bool(crc32c(self._seed, block[:place], bytes(4), block[place + 4 :]) == expected)

    def _data_checksum_holds(self, sequence: int, data: bytes, expected: int) -> bool:
        """Whether a block of data matches the checksum in its tag: the commit block may have reached the disk before the data."""
        if not self._has_checksums:
            return True
        actual = crc32c(self._seed, struct.pack(">I", sequence), data)
        return (actual if self._incompat & CHECKSUM_V3 else actual & 0xFFFF) == expected

    def _tags(self, block: bytes) -> Iterator[tuple[int, int, int]]:
        """Yield (block of the file system, flags, checksum) of each data block that follows a descriptor block."""
        position, end = 12, len(block) - (4 if self._has_checksums else 0)
        wide = bool(self._incompat & BIT64)
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

    def _revoked_blocks(self, block: bytes) -> list[int]:
        """The blocks of the file system that a revoke block lists."""
        (count,) = struct.unpack_from(">I", block, 12)
        size, form = (8, ">Q") if self._incompat & BIT64 else (4, ">I")
        end = min(count, len(block) - (4 if self._has_checksums else 0))
        return [struct.unpack_from(form, block, position)[0] for position in range(16, end - size + 1, size)]
