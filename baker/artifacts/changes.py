"""The changes of a build to its parent's file tree, with the step that made them: the evidence `changes`, one JSON line per path.

    {"path": "/etc/nginx/nginx.conf", "change": "changed", "step": 3, "before": {...}, "after": {...}}

`step` is the number of the step that changed the path last, or null when no step did: sealing, a normalization rule, a boot. `before`
and `after` are entries of file manifests, or null when the file does not exist.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Literal

from baker.artifacts.codecs import pack_lines, read_lines
from baker.artifacts.trees import Difference, compare_trees
from baker.core.model import FileEntry

Kind = Literal["added", "changed", "removed"]
EMPTY: tuple[object, ...] = ("", {}, 0)


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one path."""

    path: str
    change: Kind
    step: int | None = None
    before: FileEntry | None = None
    after: FileEntry | None = None


def changes(before: Iterable[FileEntry], after: Iterable[FileEntry], steps: Mapping[str, int]) -> Iterator[Change]:
    """Yield the changes between two manifests, sorted by path. `steps`: number of the step that changed a path last, by path."""
    for each in compare_trees(before, after):
        yield Change(each.path, _kind(each), steps.get(each.path), each.before, each.after)


def _kind(difference: Difference) -> Kind:
    return "added" if difference.before is None else "removed" if difference.after is None else "changed"


def pack(listed: Iterable[Change]) -> bytes:
    """Encode as an evidence blob."""
    return pack_lines(json.dumps(_to_json(each), sort_keys=True, separators=(",", ":")) for each in listed)


def read(blob: BinaryIO) -> Iterator[Change]:
    """Yield the changes in an evidence blob."""
    for line in read_lines(blob):
        yield parse(json.loads(line))


def parse(value: Mapping[str, Any]) -> Change:
    """The change in the parsed JSON of one line."""
    return Change(value["path"], value["change"], value["step"], _entry(value["before"]), _entry(value["after"]))


def _to_json(change: Change) -> dict[str, Any]:
    return {
        "path": change.path,
        "change": change.change,
        "step": change.step,
        "before": _slim(change.before),
        "after": _slim(change.after),
    }


def _slim(entry: FileEntry | None) -> dict[str, Any] | None:
    return None if entry is None else {name: value for name, value in asdict(entry).items() if name == "path" or value not in EMPTY}


def _entry(value: Mapping[str, Any] | None) -> FileEntry | None:
    return None if value is None else FileEntry(**{"mode": 0, "uid": 0, "gid": 0, "size": 0} | dict(value))
