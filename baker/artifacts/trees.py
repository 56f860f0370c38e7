"""Comparison of file trees by their manifests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from baker.core.model import FileEntry


@dataclass(frozen=True, slots=True)
class Difference:
    """A path that differs. `what`: "added" (missing before), "removed" (missing after), or what differs: "content", "mode", "owner", ..."""

    path: str
    what: tuple[str, ...]
    before: FileEntry | None = None
    after: FileEntry | None = None


FIELDS = (("mode", "mode"), ("uid", "owner"), ("gid", "owner"), ("size", "content"), ("sha256", "content"), ("target", "link target"),
          ("device", "device"), ("xattrs", "extended attributes"), ("mtime", "time"))  # fmt: skip


def compare_trees(before: Iterable[FileEntry], after: Iterable[FileEntry]) -> list[Difference]:
    """The differences between two manifests, sorted by path."""
    old, new = {entry.path: entry for entry in before}, {entry.path: entry for entry in after}
    differences = []
    for path in sorted(old.keys() | new.keys()):
        if path not in old:
            differences.append(Difference(path, ("added",), None, new[path]))
        elif path not in new:
            differences.append(Difference(path, ("removed",), old[path], None))
        elif old[path] != new[path]:
            differences.append(Difference(path, _differing_fields(old[path], new[path]), old[path], new[path]))
    return differences


def _differing_fields(before: FileEntry, after: FileEntry) -> tuple[str, ...]:
    words = (word for name, word in FIELDS if _field(before, name) != _field(after, name))
    return tuple(dict.fromkeys(words))


def _field(entry: FileEntry, name: str) -> object:
    value = getattr(entry, name)
    return dict(value) if name == "xattrs" else value
