"""The bytes of a disk image as the machine sees them, read in place: without conversion or mounting, in constant memory."""

from __future__ import annotations

import hashlib
import os
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from baker.core.disk_space import host_error
from baker.core.errors import HostError
from baker.core.model import Disk
from baker.disks import qcow2_reader, qemuimg
from baker.disks.qemuimg import DATA, ENCODED, ZERO, Extents

CHUNK = 1 << 20
ZEROS = bytes(CHUNK)
LARGE_TEMPORARY_FILES = Path("/var/tmp")  # noqa: S108 - where the Filesystem Hierarchy Standard puts them


class RawReader:
    """Reads the virtual disk that `extents` describe; `files` are open descriptors of `extents.parts`. Returned by `open_raw`."""

    def __init__(self, extents: Extents, files: list[int]) -> None:
        self.extents = extents
        self._files = files
        self._compressed = {depth: qcow2_reader.CompressedClusters(files[depth]) for depth in extents.encoded_parts()}
        self.size = extents.starts[-1] + extents.lengths[-1] if extents.starts else 0

    def pread(self, offset: int, length: int) -> bytes:
        """Read `length` bytes at `offset`; fewer at the end of the disk."""
        pieces = list(self.chunks(offset, length))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def chunks(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from `offset` on in pieces of at most 1 MiB. A piece that is the object `ZEROS` lies in a hole."""
        runs = self.extents
        end = self.size if length is None else min(offset + length, self.size)
        index = bisect_right(runs.starts, offset) - 1
        while offset < end:
            start, kind, depth = runs.starts[index], runs.kinds[index], runs.depths[index]
            stop = min(end, start + runs.lengths[index])
            while offset < stop:
                count = min(CHUNK, stop - offset)
                if kind == ZERO:
                    piece = ZEROS if count == CHUNK else ZEROS[:count]
                elif kind == DATA:
                    piece = os.pread(self._files[depth], count, runs.offsets[index] + offset - start)
                    # a raw file that ends inside a sector reads as zeros to the sector's end
                    piece += bytes(count - len(piece)) if len(piece) < count else b""
                else:
                    piece = self._compressed[depth].pread(count, offset)
                yield piece
                offset += count
            index += 1

    def runs(self, offset: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield (start, length, kind, depth in the backing chain) of each extent in offset..offset+length."""
        extents, end = self.extents, min(offset + length, self.size)
        index = bisect_right(extents.starts, offset) - 1
        while offset < end:
            stop = min(end, extents.starts[index] + extents.lengths[index])
            yield offset, stop - offset, extents.kinds[index], extents.depths[index]
            offset, index = stop, index + 1

    def inherited(self, offset: int, length: int) -> bool:
        """Whether all of these bytes come from a backing disk. Zeros count as the disk's own: the map does not say whose they are."""
        return offset + length <= self.size and all(kind != ZERO and depth for _, _, kind, depth in self.runs(offset, length))


@contextmanager
def open_raw(disk: Disk, *, scratch: Path | None = None) -> Iterator[RawReader]:
    """Open `disk` for reading through its whole backing chain. HostError when a file of it cannot be read.

    A format that bake cannot read in place (zstd-compressed clusters, vmdk, ...) is first converted into a temporary raw file
    in `scratch`.
    """
    with ExitStack() as stack:
        extents = qemuimg.map_extents(disk)
        if not all(qcow2_reader.readable(extents.parts[depth]) for depth in extents.encoded_parts()):
            extents = stack.enter_context(_as_raw_file(disk, scratch or LARGE_TEMPORARY_FILES))
        files = []
        for part in extents.parts:
            try:
                handle = os.open(part.path, os.O_RDONLY)
            except OSError as error:
                raise host_error(error, part.path) from error
            stack.callback(os.close, handle)
            files.append(handle)
        yield RawReader(extents, files)


@contextmanager
def _as_raw_file(disk: Disk, scratch: Path) -> Iterator[Extents]:
    """Convert `disk` into a temporary raw file; yields its extents."""
    with tempfile.TemporaryDirectory(prefix="bake-raw-", dir=scratch) as directory:
        extents = qemuimg.map_extents(qemuimg.convert(disk, Path(directory) / "disk.raw", "raw"))
        if ENCODED in extents.kinds:
            raise HostError(f"cannot read the disk {disk.path}: qemu-img does not say where its bytes are", code="disk.unsupported-format")
        yield extents


def raw_digest(disk: Disk, *, advance: Callable[[float], None] | None = None, scratch: Path | None = None) -> str:
    """The digest ("sha256:...") of the disk's bytes, equal to the SHA-256 of the disk converted to raw.

    `advance` is called with the fraction that is done, 0.0 to 1.0.
    """
    digest = hashlib.sha256()
    with open_raw(disk, scratch=scratch) as reader:
        done = 0
        for number, chunk in enumerate(reader.chunks()):
            digest.update(chunk)
            done += len(chunk)
            if advance and number % 64 == 0:
                advance(done / reader.size)
    return f"sha256:{digest.hexdigest()}"
