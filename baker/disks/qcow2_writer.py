"""Writing a qcow2 file that differs from its backing disk in some clusters, in one pass and always to the same bytes.

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

BITS = 16
CLUSTER = 1 << BITS
HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
FORMAT_EXTENSION, END = 0xE2792ACA, 0
USED, READS_ZERO = 1 << 63, 1
ENTRIES = CLUSTER // 8
COUNTS = CLUSTER // 2  # refcounts of 16 bits in a block


def write_overlay(clusters: Iterable[tuple[int, bytes]], destination: Path, *, size: int, backing: Disk | None) -> Disk:
    """Write `clusters`, (number, 64 KiB) in ascending order, to `destination`, a disk of `size` bytes over `backing`; the rest is the
    backing disk's, or zeros. A cluster that is all zeros takes no room. HostError when the disk is full."""
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
    """The header takes cluster 0, the first-level table follows, then data and second-level tables as they come, refcounts last."""

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
        where, tables = self._write_refcounts(file)
        os.pwrite(file, self._header(where, tables), 0)

    def _append(self, file: int, data: bytes) -> int:
        place = self._next * CLUSTER
        os.pwrite(file, data.ljust(CLUSTER, b"\0"), place)
        self._next += 1
        return place

    def _close_table(self, file: int, index: int, table: list[int]) -> None:
        if any(table):
            self._first_level[index] = self._append(file, struct.pack(f">{ENTRIES}Q", *table)) | USED

    def _write_refcounts(self, file: int) -> tuple[int, int]:
        """Every cluster up to the end is used once. (offset of the table, its clusters)."""
        blocks, tables = 0, 0
        while True:
            total = self._next + blocks + tables
            wanted = -(-total // COUNTS)
            if (wanted, -(-wanted * 8 // CLUSTER)) == (blocks, tables):
                break
            blocks, tables = wanted, -(-wanted * 8 // CLUSTER)
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
        extensions = struct.pack(">II", FORMAT_EXTENSION, len(kind)) + kind + bytes(-len(kind) % 8) if kind else b""
        extensions += struct.pack(">II", END, 0)
        where = HEADER.size + len(extensions) if name else 0
        return HEADER.pack(
            b"QFI\xfb", 3, where, len(name), BITS, self._size, 0, len(self._first_level), CLUSTER, refcounts, refcount_clusters, 0, 0,
            0, 0, 0, 4, HEADER.size,
        ) + extensions + name  # fmt: skip
