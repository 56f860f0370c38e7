"""The differences between two lock files, a row for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from baker.lockfile.check import package_changes
from baker.lockfile.galaxy import describe
from baker.lockfile.model import Lock, LockedImage


@dataclass(frozen=True)
class Change:
    """One difference. `before` and `after` are "" if there is no value, `image` is "" if the whole template is concerned."""

    image: str
    what: str  # "epoch", "version", "inputs", "source", "file", "index", "download", "role", "collection", "package", "tool"
    name: str
    before: str
    after: str


def changes(old: Lock | None, new: Lock) -> list[Change]:
    """All differences. The commit of the repository is not compared, because committing a lock changes it."""
    rows: list[Change] = []
    if old is None or old.epoch != new.epoch:
        rows.append(Change("", "epoch", "", str(old.epoch) if old else "", str(new.epoch)))
    versions = [{name: tool.version for name, tool in lock.tools.items()} if lock else {} for lock in (old, new)]
    rows += _mapping("", "tool", *versions)
    for name in sorted((old.images.keys() if old else set()) | new.images.keys()):
        rows += _image(name, old.images.get(name) if old else None, new.images.get(name))
    return rows


def _image(name: str, old: LockedImage | None, new: LockedImage | None) -> Iterator[Change]:
    for what in ("version", "inputs"):
        before, after = getattr(old, what, ""), getattr(new, what, "")
        if before != after:
            yield Change(name, what, "", before, after)
    before, after = old.source.digest if old else "", new.source.digest if new else ""
    if before != after:
        yield Change(name, "source", (new or old).source.title if new or old else "", before, after)  # type: ignore[union-attr]
    yield from _mapping(name, "file", old.files if old else {}, new.files if new else {})
    indexes = [{each.url: each.date or each.digest for each in lock.indexes} if lock else {} for lock in (old, new)]
    yield from _mapping(name, "index", *indexes)
    downloads = [{each.url: each.digest for each in lock.downloads} if lock else {} for lock in (old, new)]
    yield from _mapping(name, "download", *downloads)
    for what, contents in (("role", "roles"), ("collection", "collections")):
        described = [{each.name: describe(each) for each in getattr(lock, contents)} if lock else {} for lock in (old, new)]
        yield from _mapping(name, what, *described)
    for package, had, has in package_changes(old.packages if old else (), new.packages if new else ()):
        yield Change(name, "package", package, had, has)


def _mapping(image: str, what: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Change]:
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield Change(image, what, key, before.get(key, ""), after.get(key, ""))
