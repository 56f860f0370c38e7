"""Levels of equality between a rebuilt image and the recorded one. A level is always checked, never declared."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

from baker.artifacts.trees import Difference
from baker.core.model import PackageList


class Level(enum.IntEnum):
    """Each level includes the levels below it."""

    NONE = -1  # inputs are missing or differ
    INPUTS = 0  # every input is pinned and stored: the build ran from the record alone
    PACKAGES = 1  # the same packages in the same versions
    TREE = 2  # the same files: path, type, mode, owner, extended attributes, content, links
    DISK = 3  # the same disk, bit by bit, including times

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
    *, inputs: bool, packages: tuple[PackageList, PackageList], differences: Iterable[Difference] | None, disks: tuple[str, str]
) -> Level:
    """Return the level reached. Pairs are (recorded, rebuilt). `differences`: between the file trees; None if they were not compared.

    Incomplete package lists do not reach Level.PACKAGES. They can reach a higher level, because a tree has its package databases.
    """
    if not inputs:
        return Level.NONE
    complete = packages[0].complete and packages[1].complete
    if complete and set(packages[0].packages) != set(packages[1].packages):
        return Level.INPUTS
    same_disk = disks[0] == disks[1]
    same_tree = same_disk if differences is None else not any(set(difference.what) - {"time"} for difference in differences)
    if same_tree:
        return Level.DISK if same_disk else Level.TREE
    return Level.PACKAGES if complete else Level.INPUTS
