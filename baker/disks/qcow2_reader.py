"""Reader for compressed clusters of a qcow2 file, which `qemu-img map` lists without saying where they are.

Format: QEMU's docs/interop/qcow2.txt: the header, the two-level cluster table, and the "Compressed Clusters Descriptor".
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import OrderedDict
from pathlib import Path

from baker.core.errors import HostError
from baker.disks.qemuimg import DiskInfo

COMPRESSED = 1 << 62
OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00
SECTOR = 512
CACHED_CLUSTERS = 32  # decompressed clusters and second-level tables that are kept in memory
MAGIC, EXTERNAL_DATA, LONGEST_NAME = b"QFI\xfb", 1 << 2, 1023


def readable(part: DiskInfo) -> bool:
    """Whether this module can read the compressed clusters of a file: compressed by deflate, with standard second-level entries."""
    return part.plain and part.format == "qcow2" and part.compression in (None, "zlib") and not part.extended_l2


def backing_of(path: Path) -> str:
    """The backing file that a qcow2 file names; "" for none. HostError for a file that is not qcow2, is encrypted, or keeps its data
    in another file.

    Only the header is read. qemu-img would open the files that the header names, and the file may come from somebody else.
    """
    with path.open("rb") as file:
        header = file.read(104).ljust(104, b"\0")
        magic, version, place, length = struct.unpack_from(">4sIQI", header)
        (encryption,) = struct.unpack_from(">I", header, 32)
        (features,) = struct.unpack_from(">Q", header, 72)
        if magic != MAGIC or version not in (2, 3):
            raise HostError(f"the file {path.name} is not a qcow2 disk", code="disk.not-qcow2")
        if encryption or (version == 3 and features & EXTERNAL_DATA):
            raise HostError(f"the disk {path.name} is encrypted or keeps its data in another file", code="disk.unsupported-format")
        if not place:
            return ""
        file.seek(place)
        return file.read(min(length, LONGEST_NAME)).decode("utf-8", "surrogateescape")


class CompressedClusters:
    """Reads compressed clusters of one open qcow2 file."""

    def __init__(self, descriptor: int) -> None:
        self._file = descriptor
        header = os.pread(descriptor, 48, 0)
        self._bits, _, _, _, self._l1 = struct.unpack_from(">IQIIQ", header, 20)
        self.cluster = 1 << self._bits
        self._l2_entries = self.cluster // 8
        self._tables: OrderedDict[int, bytes] = OrderedDict()
        self._clusters: OrderedDict[int, bytes] = OrderedDict()

    def pread(self, length: int, offset: int) -> bytes:
        """Read `length` bytes of the disk at `offset`, all of which must be in compressed clusters. HostError for a damaged cluster."""
        pieces = []
        while length > 0:
            index, inside = divmod(offset, self.cluster)
            piece = self._cluster(index)[inside : inside + length]
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return b"".join(pieces)

    def _cluster(self, index: int) -> bytes:
        """A decompressed cluster, through the cache."""
        data = self._clusters.get(index)
        if data is None:
            data = self._clusters[index] = self._decompress(index)
            if len(self._clusters) > CACHED_CLUSTERS:
                self._clusters.popitem(last=False)
        return data

    def _decompress(self, index: int) -> bytes:
        high, low = divmod(index, self._l2_entries)
        (entry,) = struct.unpack_from(">Q", self._table(high), low * 8)
        if not entry & COMPRESSED:
            raise HostError(f"cluster {index} of the disk is not compressed, although qemu-img reports that it is", code="disk.damaged")
        split = 62 - (self._bits - 8)
        place = entry & ((1 << split) - 1)
        sectors = ((entry & (COMPRESSED - 1)) >> split) + 1
        packed = os.pread(self._file, sectors * SECTOR - place % SECTOR, place)
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, self.cluster)
        except zlib.error as error:
            raise HostError(f"cluster {index} of the disk is damaged: {error}", code="disk.damaged") from error
        if len(data) != self.cluster:
            raise HostError(f"cluster {index} of the disk is damaged: its data ends early", code="disk.damaged")
        return data

    def _table(self, index: int) -> bytes:
        """A second-level table, through the cache."""
        table = self._tables.get(index)
        if table is None:
            (entry,) = struct.unpack(">Q", os.pread(self._file, 8, self._l1 + index * 8))
            table = self._tables[index] = os.pread(self._file, self.cluster, entry & OFFSET_MASK)
            if len(self._tables) > CACHED_CLUSTERS:
                self._tables.popitem(last=False)
        return table
