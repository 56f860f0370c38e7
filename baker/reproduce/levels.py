"""How far a rebuilt image is the same as the one on record. A level is checked, never declared."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from baker.model import FileEntry, Package


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


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that is not the same. `what`: "added" (only the rebuilt image has it), "removed", "content", "mode", "owner", "time", ..."""

    path: str
    what: tuple[str, ...]
    before: FileEntry | None = None
    after: FileEntry | None = None


FIELDS = (("mode", "mode"), ("uid", "owner"), ("gid", "owner"), ("size", "content"), ("sha256", "content"), ("target", "link target"),
          ("device", "device"), ("xattrs", "extended attributes"), ("mtime", "time"))  # fmt: skip


def compare_trees(before: Iterable[FileEntry], after: Iterable[FileEntry]) -> list[Difference]:
    """What differs between two manifests, by path."""
    old, new = {entry.path: entry for entry in before}, {entry.path: entry for entry in after}
    found = []
    for path in sorted(old.keys() | new.keys()):
        if path not in old:
            found.append(Difference(path, ("added",), None, new[path]))
        elif path not in new:
            found.append(Difference(path, ("removed",), old[path], None))
        elif old[path] != new[path]:
            found.append(Difference(path, _what(old[path], new[path]), old[path], new[path]))
    return found


def _what(before: FileEntry, after: FileEntry) -> tuple[str, ...]:
    differing = (word for name, word in FIELDS if _field(before, name) != _field(after, name))
    return tuple(dict.fromkeys(differing))


def _field(entry: FileEntry, name: str) -> object:
    value = getattr(entry, name)
    return dict(value) if name == "xattrs" else value


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
