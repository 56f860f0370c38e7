"""Sets of blocks as runs: (first, count)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

Run = tuple[int, int]


def merged(runs: Iterable[Run]) -> list[Run]:
    """The runs in order, those joined that touch or overlap."""
    found: list[Run] = []
    for start, count in sorted(runs):
        if found and start <= sum(found[-1]):
            found[-1] = (found[-1][0], max(sum(found[-1]), start + count) - found[-1][0])
        elif count:
            found.append((start, count))
    return found


def gaps(runs: Iterable[Run], start: int, end: int) -> Iterator[Run]:
    """What of start..end is in none of `runs`, which are merged."""
    for first, count in runs:
        if first > start:
            yield start, min(first, end) - start
        start = max(start, first + count)
        if start >= end:
            return
    if start < end:
        yield start, end - start


def without(runs: Iterable[Run], others: Iterable[Run]) -> list[Run]:
    """What of `runs` is in none of `others`."""
    taken = merged(others)
    found: list[Run] = []
    for start, count in merged(runs):
        inside = [(start + first, length) for first, length in clipped(taken, start, count)]
        found += gaps(inside, start, start + count)
    return found


def first_of(runs: Iterable[Run], count: int) -> list[Run]:
    """The first `count` blocks of `runs`, in their order."""
    found = []
    for start, length in runs:
        if count <= 0:
            break
        found.append((start, min(length, count)))
        count -= length
    return found


def clipped(runs: Sequence[Run], start: int, count: int) -> Iterator[Run]:
    """What of merged runs lies in start..start+count, counted from `start`."""
    index = max(0, bisect_right(runs, (start, 0)) - 1)
    for position in range(index, len(runs)):
        first, length = runs[position]
        if first >= start + count:
            return
        low, high = max(first, start), min(first + length, start + count)
        if low < high:
            yield low - start, high - low


def untouched(runs: Iterable[Run], others: Sequence[Run]) -> list[Run]:
    """Those of `runs`, in their order, that touch none of `others`, which are merged."""
    return [run for run in runs if not any(True for _ in clipped(others, *run))]


class Free:
    """Blocks to be had. The lowest run that is long enough is taken; where there is none, the lowest runs."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = [run for run in runs if run[1]]
        self._lowest = 0  # runs before this one are used up

    def take(self, count: int) -> list[Run]:
        """`count` blocks; ValueError when there are not so many."""
        if count == 0:
            return []
        for index in range(self._lowest, len(self._runs)):
            if self._runs[index][1] >= count:
                return [self._cut(index, count)]
        found = []
        while count and self._lowest < len(self._runs):
            run = self._cut(self._lowest, min(count, self._runs[self._lowest][1]))
            found.append(run)
            count -= run[1]
        if count:
            raise ValueError("no free blocks")
        return found

    def _cut(self, index: int, count: int) -> Run:
        start, length = self._runs[index]
        self._runs[index] = (start + count, length - count)
        while self._lowest < len(self._runs) and not self._runs[self._lowest][1]:
            self._lowest += 1
        return start, count
