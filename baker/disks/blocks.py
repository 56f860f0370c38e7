"""Which blocks of a disk can differ from those of another disk, told from the maps of both, before any byte is read.

Two runs that are the same bytes of the same file cannot differ. So for an image and its parent what is left is what the image's own delta
holds; what of that really differs, reading tells.
"""

from __future__ import annotations

from collections.abc import Iterator

from baker.disks.qemuimg import DATA, ZERO, DiskInfo, Extents

Same = tuple[int, ...] | None  # what a run reads as: equal for equal bytes; None for zeros


def candidates(disk: Extents, size: int, below: Extents | None = None) -> Iterator[int]:
    """The numbers of the blocks of `size` bytes in which `disk` may differ from `below`, ascending. Where there is no disk below, or
    where it has ended, it reads as zeros."""
    following = 0
    for start, end in differences(disk, below):
        for index in range(max(following, start // size), -(-end // size)):
            yield index
            following = index + 1


def differences(disk: Extents, below: Extents | None = None) -> Iterator[tuple[int, int]]:
    """The ranges (start, end) of `disk` that are not known to read as `below` does, ascending."""
    others = _runs(below) if below is not None else iter(())
    other_end, other = 0, None
    for start, end, same in _runs(disk):
        while start < end:
            while other_end <= start:
                found = next(others, None)
                if found is None:
                    other_end, other = 1 << 63, None
                    break
                other_end, other = found[1], found[2]
            stop = min(end, other_end)
            if same != other:
                yield start, stop
            start = stop


def _runs(extents: Extents) -> Iterator[tuple[int, int, Same]]:
    """(start, end, what it reads as) of each run."""
    files = [_identity(part) for part in extents.parts]
    for start, length, kind, depth, offset in extents:
        if kind == ZERO:
            yield start, start + length, None
        elif kind == DATA:
            yield start, start + length, (*files[depth], offset - start)
        else:
            yield start, start + length, files[depth]


def _identity(part: DiskInfo) -> tuple[int, int]:
    found = part.path.stat()
    return found.st_dev, found.st_ino
