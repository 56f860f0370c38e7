"""Trees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from baker.core.model import FileEntry


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
