"""How far a rebuilt image is the same as the one on record. A level is checked, never declared."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

from baker.artifacts.trees import Difference
from baker.core.model import Package


class Level(enum.IntEnum):
    """Each one holds those below it."""

    NONE = -1  # the inputs are not all there, or are others
    INPUTS = 0  # every input is pinned and its bytes are kept: the build ran from the record alone
    PACKAGES = 1  # the same packages in the same versions
    TREE = 2  # the same files: path, type, mode, owner, extended attributes, content, links
    DISK = 3  # the same disk, bit by bit: times too

    @property
    def words(self) -> str:
        return WORDS[self]

    @property
    def title(self) -> str:
        return f"L{int(self)}" if self >= 0 else "none"


WORDS: Mapping[Level, str] = {
    Level.NONE: "not made from the record alone",
    Level.INPUTS: "every input pinned and kept",
    Level.PACKAGES: "the same packages",
    Level.TREE: "the same file tree",
    Level.DISK: "the same disk",
}


def level_of(
    *, inputs: bool, packages: tuple[Iterable[Package], Iterable[Package]], differences: Iterable[Difference], disks: tuple[str, str]
) -> Level:
    """The level reached; pairs are (on record, rebuilt)."""
    if not inputs:
        return Level.NONE
    if set(packages[0]) != set(packages[1]):
        return Level.INPUTS
    if any(set(difference.what) - {"time"} for difference in differences):
        return Level.PACKAGES
    return Level.DISK if disks[0] == disks[1] else Level.TREE
