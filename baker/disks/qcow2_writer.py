"""Writer for qcow2 files that hold some clusters on top of a backing disk; equal input gives equal bytes.

Format: QEMU's docs/interop/qcow2.txt, version 3: header, refcount table and blocks, the two-level cluster table, data.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path

from baker.core.disk_space import host_error
from baker.core.model import Disk
from baker.disks.raw import ZEROS

BITS = 16  # of the offset in a cluster
CLUSTER = 1 << BITS
HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
BACKING_FORMAT_EXTENSION, END_OF_EXTENSIONS = 0xE2792ACA, 0
USED, READS_ZERO = 1 << 63, 1  # flags of a table entry: the refcount is 1; the cluster reads as zeros
ENTRIES = CLUSTER // 8  # in a second-level table
COUNTS = CLUSTER // 2  # refcounts of 16 bits in a refcount block


def write_overlay(clusters: Iterable[tuple[int, bytes]], destination: Path, *, size: int, backing: Disk | None) -> Disk:
    """Write `clusters` to `destination`, a disk of `size` bytes backed by `backing`.

    `clusters` are (number, content of up to 64 KiB), ascending by number. All other clusters read as the backing disk, or as zeros without
    one. A cluster of zeros takes no space. HostError when the file cannot be written, for example on a full file system; the
    unfinished file is removed.
    """
    writer = _Writer(size, backing)
    try:
        with destination.open("wb") as file:
            writer.write(file.fileno(), clusters)
    except OSError as error:
        destination.unlink(missing_ok=True)
        raise host_error(error, destination) from error
    except BaseException:
        destination.unlink(missing_ok=True)
        raise
    return Disk(destination, "qcow2", size)


class _Writer:
    """Order in the file: the header in cluster 0, the first-level table, data and second-level tables as they come, refcounts."""

    def __init__(self, size: int, backing: Disk | None) -> None:
        self._size, self._backing = size, backing
        self._first_level = [0] * max(1, -(-size // (CLUSTER * ENTRIES)))
        self._next = 1 + -(-len(self._first_level) * 8 // CLUSTER)

    def write(self, file: int, clusters: Iterable[tuple[int, bytes]]) -> None:
        table: list[int] = []
        index = -1
        for number, data in clusters:
            if number // ENTRIES != index:
                self._close_table(file, index, table)
                index, table = number // ENTRIES, [0] * ENTRIES
            table[number % ENTRIES] = READS_ZERO if data == ZEROS[:CLUSTER] else self._append(file, data) | USED
        self._close_table(file, index, table)
        os.pwrite(file, struct.pack(f">{len(self._first_level)}Q", *self._first_level), CLUSTER)
        refcounts, refcount_clusters = self._write_refcounts(file)
        os.pwrite(file, self._header(refcounts, refcount_clusters), 0)

    def _append(self, file: int, data: bytes) -> int:
        """Write the next cluster; its offset in the file."""
        place = self._next * CLUSTER
        os.pwrite(file, data.ljust(CLUSTER, b"\0"), place)
        self._next += 1
        return place

    def _close_table(self, file: int, index: int, table: list[int]) -> None:
        if any(table):
            self._first_level[index] = self._append(file, struct.pack(f">{ENTRIES}Q", *table)) | USED

    def _write_refcounts(self, file: int) -> tuple[int, int]:
        """Write refcounts of 1 for every cluster of the file. Returns the offset of the refcount table and its size in clusters.

        The table and its blocks are counted too, so their sizes are computed until they no longer change.
        """
        blocks, tables = 0, 0
        while True:
            total = self._next + blocks + tables
            needed = -(-total // COUNTS)
            if (needed, -(-needed * 8 // CLUSTER)) == (blocks, tables):
                break
            blocks, tables = needed, -(-needed * 8 // CLUSTER)
        first = self._next + tables
        start = self._next * CLUSTER
        os.pwrite(file, struct.pack(f">{blocks}Q", *((first + index) * CLUSTER for index in range(blocks))), start)
        for index in range(blocks):
            here = min(COUNTS, total - index * COUNTS)
            os.pwrite(file, (b"\0\1" * here).ljust(CLUSTER, b"\0"), (first + index) * CLUSTER)
        os.ftruncate(file, total * CLUSTER)
        return start, tables

    def _header(self, refcounts: int, refcount_clusters: int) -> bytes:
        name = str(self._backing.path.absolute()).encode() if self._backing else b""
        kind = self._backing.format.encode() if self._backing else b""
        extensions = struct.pack(">II", BACKING_FORMAT_EXTENSION, len(kind)) + kind + bytes(-len(kind) % 8) if kind else b""
        extensions += struct.pack(">II", END_OF_EXTENSIONS, 0)
        name_offset = HEADER.size + len(extensions) if name else 0
        return HEADER.pack(
            b"QFI\xfb", 3, name_offset, len(name), BITS, self._size, 0, len(self._first_level), CLUSTER, refcounts, refcount_clusters, 0, 0,
            0, 0, 0, 4, HEADER.size,
        ) + extensions + name  # fmt: skip
