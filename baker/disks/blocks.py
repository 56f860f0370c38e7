"""Blocks in which two disks may differ, found by comparing their extent maps before any byte is read.

Two extents that refer to the same bytes of the same file cannot differ. For an image and its parent, the comparison therefore
leaves what the image's own delta holds. Only reading the blocks tells which of them really differ.
"""

from __future__ import annotations

from collections.abc import Iterator

from baker.disks.qemuimg import DATA, ZERO, DiskInfo, Extents

Content = tuple[int, ...] | None  # identifies what an extent reads as: equal values mean equal bytes; None means zeros


def candidates(disk: Extents, size: int, base: Extents | None = None) -> Iterator[int]:
    """Yield the numbers of the blocks of `size` bytes in which `disk` may differ from `base`, ascending.

    Without a base, or after its end, `disk` is compared with zeros.
    """
    following = 0
    for start, end in differences(disk, base):
        for index in range(max(following, start // size), -(-end // size)):
            yield index
            following = index + 1


def differences(disk: Extents, base: Extents | None = None) -> Iterator[tuple[int, int]]:
    """Yield the byte ranges (start, end) of `disk` that are not known to read as `base` does, ascending."""
    base_runs = _runs(base) if base is not None else iter(())
    base_end, base_content = 0, None
    for start, end, content in _runs(disk):
        while start < end:
            while base_end <= start:
                run = next(base_runs, None)
                if run is None:
                    base_end, base_content = 1 << 63, None
                    break
                base_end, base_content = run[1], run[2]
            stop = min(end, base_end)
            if content != base_content:
                yield start, stop
            start = stop


def _runs(extents: Extents) -> Iterator[tuple[int, int, Content]]:
    """Yield (start, end, content) of each extent."""
    files = [_identity(part) for part in extents.parts]
    for start, length, kind, depth, offset in extents:
        if kind == ZERO:
            yield start, start + length, None
        elif kind == DATA:
            yield start, start + length, (*files[depth], offset - start)
        else:
            yield start, start + length, files[depth]


def _identity(part: DiskInfo) -> tuple[int, int]:
    status = part.path.stat()
    return status.st_dev, status.st_ino
