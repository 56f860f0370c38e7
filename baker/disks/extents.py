"""Arithmetic on sets of blocks, stored as runs: (first block, count)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

Run = tuple[int, int]


def merged(runs: Iterable[Run]) -> list[Run]:
    """Sort the runs and join those that touch or overlap."""
    result: list[Run] = []
    for start, count in sorted(runs):
        if result and start <= sum(result[-1]):
            result[-1] = (result[-1][0], max(sum(result[-1]), start + count) - result[-1][0])
        elif count:
            result.append((start, count))
    return result


def gaps(runs: Iterable[Run], start: int, end: int) -> Iterator[Run]:
    """Yield the parts of start..end that are in none of `runs`, which must be merged."""
    for first, count in runs:
        if first > start:
            yield start, min(first, end) - start
        start = max(start, first + count)
        if start >= end:
            return
    if start < end:
        yield start, end - start


def subtract(runs: Iterable[Run], others: Iterable[Run]) -> list[Run]:
    """The parts of `runs` that are in none of `others`."""
    subtrahend = merged(others)
    result: list[Run] = []
    for start, count in merged(runs):
        inside = [(start + first, length) for first, length in clipped(subtrahend, start, count)]
        result += gaps(inside, start, start + count)
    return result


def first_blocks(runs: Iterable[Run], count: int) -> list[Run]:
    """The first `count` blocks of `runs`, in their order; all of them when there are fewer."""
    result = []
    for start, length in runs:
        if count <= 0:
            break
        result.append((start, min(length, count)))
        count -= length
    return result


def clipped(runs: Sequence[Run], start: int, count: int) -> Iterator[Run]:
    """Yield the parts of `runs`, which must be merged, in start..start+count, counted from `start`."""
    index = max(0, bisect_right(runs, (start, 0)) - 1)
    for position in range(index, len(runs)):
        first, length = runs[position]
        if first >= start + count:
            return
        low, high = max(first, start), min(first + length, start + count)
        if low < high:
            yield low - start, high - low


def disjoint(runs: Iterable[Run], others: Sequence[Run]) -> list[Run]:
    """Those of `runs`, in their order, that share no block with `others`, which must be merged."""
    return [run for run in runs if not any(True for _ in clipped(others, *run))]


class FreeBlocks:
    """Allocates blocks from `runs`: from the lowest run that is long enough, otherwise from several of the lowest runs."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = [run for run in runs if run[1]]
        self._lowest = 0  # index of the first run that is not used up

    def allocate(self, count: int) -> list[Run]:
        """Allocate `count` blocks. ValueError when there are fewer."""
        if count == 0:
            return []
        for index in range(self._lowest, len(self._runs)):
            if self._runs[index][1] >= count:
                return [self._cut(index, count)]
        result = []
        while count and self._lowest < len(self._runs):
            run = self._cut(self._lowest, min(count, self._runs[self._lowest][1]))
            result.append(run)
            count -= run[1]
        if count:
            raise ValueError("no free blocks")
        return result

    def _cut(self, index: int, count: int) -> Run:
        start, length = self._runs[index]
        self._runs[index] = (start + count, length - count)
        while self._lowest < len(self._runs) and not self._runs[self._lowest][1]:
            self._lowest += 1
        return start, count
