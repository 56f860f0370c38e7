"""The bytes of snapshots: 512 KiB blocks in sparse files, of which a child shares its parent's.

Block tokens stand for one writing of one block: what a child did not write has its parent's token, so that the changed blocks of two
snapshots of one lineage are those whose tokens differ, as with EBS.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = 512 * 1024
GIB = 1024**3
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Block:
    """Where one block lies: a descriptor of a file (which may have lost its name) and the token of its writing."""

    descriptor: int
    token: str
    digest: bytes  # raw SHA-256


@dataclass
class Blocks:
    """The blocks of one snapshot. `path`: its own file, as long as the volume."""

    path: Path
    size: int  # bytes
    blocks: dict[int, Block] = field(default_factory=dict)
    written: set[int] = field(default_factory=set)
    parent: Blocks | None = None  # kept, so that its descriptor stays open
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self.descriptor, self.size)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    @property
    def count(self) -> int:
        """How many blocks the volume has room for."""
        return -(-self.size // BLOCK)

    def put(self, index: int, data: bytes, digest: bytes) -> None:
        os.pwrite(self.descriptor, data, index * BLOCK)
        with self.lock:
            self.blocks[index] = Block(self.descriptor, f"token-{next(_numbers)}-{os.getpid()}", digest)
            self.written.add(index)

    def get(self, index: int) -> bytes:
        return os.pread(self.blocks[index].descriptor, BLOCK, index * BLOCK).ljust(BLOCK, b"\0")

    def child(self, path: Path, size: int) -> Blocks:
        made = Blocks(path, size, parent=self)
        made.blocks.update(self.blocks)
        return made

    def linear(self) -> bytes:
        """The checksum over the blocks that were written here: SHA-256 of their raw digests, in the order of their indexes."""
        return hashlib.sha256(b"".join(self.blocks[index].digest for index in sorted(self.written))).digest()

    def disk(self) -> Path:
        """The whole as one sparse raw file, which is its own file with what the parents have filled in."""
        for index, block in sorted(self.blocks.items()):
            if index not in self.written:
                os.pwrite(self.descriptor, os.pread(block.descriptor, BLOCK, index * BLOCK), index * BLOCK)
                self.blocks[index] = Block(self.descriptor, block.token, block.digest)
        return self.path

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def of_file(path: Path, size: int) -> Blocks:
    """The blocks of a raw file that is there already; blocks of zeros are left out, as EBS does with what was never written."""
    made = Blocks(path, size)
    for start, end in _data(made.descriptor, size):
        for index in range(start // BLOCK, -(-end // BLOCK)):
            if index not in made.blocks:
                data = os.pread(made.descriptor, BLOCK, index * BLOCK).ljust(BLOCK, b"\0")
                if data.strip(b"\0"):
                    made.blocks[index] = Block(made.descriptor, f"token-{next(_numbers)}-{os.getpid()}", hashlib.sha256(data).digest())
    return made


def _data(descriptor: int, size: int) -> list[tuple[int, int]]:
    """The extents of a sparse file that hold data."""
    found, at = [], 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:
            break
        at = os.lseek(descriptor, start, os.SEEK_HOLE)
        found.append((start, at))
    return found
