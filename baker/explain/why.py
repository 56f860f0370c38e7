"""The origin of a file or package in an image: the build and step that put it there, from the records of builds, newest first.

Normally only the changes of each build to its parent are read (the evidence `changes`), so a long lineage costs little. What no
build changed came with the source of the root. Whole manifests are read, each once, for builds without recorded changes;
package lists are read for builds that changed them.
"""

from __future__ import annotations

import difflib
import fnmatch
import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from baker.artifacts.changes import Change, parse
from baker.artifacts.codecs import read_lines, read_packages
from baker.catalog.records import BuildRecord, ImageRecord, StepRecord
from baker.core.errors import NotFoundError
from baker.core.model import FileEntry, Package

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog
    from baker.core.model import Fetched
    from baker.store.base import BlobStore

MAX_GUESSES = 3  # similar names in a hint


@dataclass(frozen=True)
class Reason:
    """What added, changed or removed a path last. `step` is None when no step did: the source, sealing, a normalization rule."""

    path: str
    change: str  # "added", "changed", "removed"
    image: ImageRecord
    build: BuildRecord
    step: StepRecord | None
    entry: FileEntry | None
    earlier: tuple[tuple[ImageRecord, str, StepRecord | None], ...] = ()  # earlier changes: image, change, step; newest first
    inputs: tuple[tuple[str, str], ...] = ()  # (file that the step read, its digest)
    source: bool = False  # no build changed it: it came with the source of the root
    known: bool = True  # False when the step is not on record


@dataclass(frozen=True)
class PackageReason:
    """What installed a package in this version. `fetched`: the download of the package, if it is on record."""

    package: Package
    before: str  # the version before; "" when the package was not installed
    image: ImageRecord
    build: BuildRecord
    step: StepRecord | None
    fetched: Fetched | None
    source: bool = False  # no build installed it: it came with the source of the root


def why(catalog: Catalog, store: BlobStore, image: ImageRecord, path: str) -> Reason:
    """Find what added, changed or removed `path` last. NotFoundError, with similar paths, when the image never had it."""
    path = "/" + path.strip("/")
    lineage, builds = _lineage(catalog, image)

    @cache
    def manifest_entry(number: int) -> FileEntry | None:
        return _manifest_entry(store, builds[number], path)

    events: list[_Event] = []
    for number, build in enumerate(builds):
        known = "changes" in build.evidence
        change = _change(store, build, path) if known else _change_from_manifests(builds, number, manifest_entry, path)
        if change:
            events.append(_Event(lineage[number], build, change, known or not build.steps))
    if not events:
        entry = manifest_entry(len(builds) - 1)
        if entry is None:
            similar = _similar_paths(store, builds[0], path)
            hint = f"did you mean {' or '.join(similar)}?" if similar else f"bake show {image.name}@{image.version} --files lists all files"
            message = f"neither {image.name}@{image.version} nor one of its ancestors has a file {path}"
            raise NotFoundError(message, hint=hint, code="image.no-such-path")
        return Reason(path, "added", lineage[-1], builds[-1], None, entry, source=True)
    newest = events[0]
    earlier = tuple((each.image, each.change.change, _step(each.build, each.change.step)) for each in events[1:])
    step = _step(newest.build, newest.change.step)
    entry = newest.change.after or newest.change.before
    return Reason(path, newest.change.change, newest.image, newest.build, step, entry, earlier, tuple(_inputs(step)), known=newest.known)


@dataclass(frozen=True)
class _Event:
    image: ImageRecord
    build: BuildRecord
    change: Change
    known: bool  # whether the step is on record


def why_package(catalog: Catalog, store: BlobStore, image: ImageRecord, name: str) -> PackageReason:
    """Find what installed a package in its present version. NotFoundError, with similar names, when the image has no such package."""
    lineage, builds = _lineage(catalog, image)
    installed = _packages(store, builds[0], "packages_after")
    package = next((each for each in installed if each.name == name), None)
    if package is None:
        similar = difflib.get_close_matches(name, [each.name for each in installed], MAX_GUESSES)
        raise NotFoundError(
            f"{image.name}@{image.version} has no package {name}",
            hint=f"did you mean {' or '.join(similar)}?" if similar else f"bake show {image.name}@{image.version} --packages lists them",
            code="image.no-such-package",
        )
    for each, build in zip(lineage, builds, strict=True):
        if "packages_before" in build.evidence and build.evidence["packages_before"] == build.evidence.get("packages_after"):
            continue  # the same list: this build changed no package
        before = next((old.version for old in _packages(store, build, "packages_before") if _same_package(old, package)), "")
        if before != package.version:
            return PackageReason(package, before, each, build, _step_of_package(store, build, package), _fetched(store, build, package))
    return PackageReason(package, "", lineage[-1], builds[-1], None, None, source=True)


def _lineage(catalog: Catalog, image: ImageRecord) -> tuple[Sequence[ImageRecord], Sequence[BuildRecord]]:
    """An image with its ancestors, newest first, and their builds. NotFoundError when a build is not on record."""
    lineage = catalog.history(image)
    builds = catalog.builds_of(lineage)
    return lineage, [build or catalog.build_of(each) for each, build in zip(lineage, builds, strict=True)]


def _same_package(left: Package, right: Package) -> bool:
    return (left.name, left.architecture, left.kind) == (right.name, right.architecture, right.kind)


def _change(store: BlobStore, build: BuildRecord, path: str) -> Change | None:
    """The recorded change of a path by a build; None when it did not change the path."""
    value = _find_json_line(store, build, "changes", path)
    return parse(value) if value else None


def _change_from_manifests(
    builds: Sequence[BuildRecord], number: int, manifest_entry: Callable[[int], FileEntry | None], path: str
) -> Change | None:
    """The change of a path by a build without recorded changes, found by comparing its manifest with its parent's; the step is unknown.

    `manifest_entry` returns the entry of the path in the manifest of a build. The root has no parent: all files count as added by
    it, unless it has no steps.
    """
    root = number == len(builds) - 1
    if root and not builds[number].steps:
        return None  # an import: everything came with the source
    after, before = manifest_entry(number), None if root else manifest_entry(number + 1)
    if after == before:
        return None
    return Change(path, "added" if before is None else "changed" if after else "removed", None, before, after)


def _manifest_entry(store: BlobStore, build: BuildRecord, path: str) -> FileEntry | None:
    """The entry of a path in the file manifest of a build; None when it has none."""
    value = _find_json_line(store, build, "manifest", path)
    return FileEntry(**value) if value else None


def _find_json_line(store: BlobStore, build: BuildRecord, evidence: str, path: str) -> dict[str, Any] | None:
    """The JSON line of a path in an evidence blob; None without one. The text is searched first, so that few lines are parsed."""
    if evidence not in build.evidence:
        return None
    with store.open(build.evidence[evidence]) as blob:
        text = gzip.decompress(blob.read())
    pattern, place = f'"path":{json.dumps(path)}'.encode(), 0
    while (place := text.find(pattern, place)) >= 0:
        value: dict[str, Any] = json.loads(text[text.rfind(b"\n", 0, place) + 1 : text.find(b"\n", place)])
        if value["path"] == path:
            return value
        place += 1
    return None


def _similar_paths(store: BlobStore, build: BuildRecord, path: str) -> list[str]:
    """Paths that the user may have meant: matches of a pattern, or similar names in the directory, then the same name elsewhere."""
    if "manifest" not in build.evidence:
        return []
    directory, _, name = path.rpartition("/")
    with store.open(build.evidence["manifest"]) as blob:
        paths = [json.loads(line)["path"] for line in read_lines(blob)]
    if any(sign in path for sign in "*?["):
        return fnmatch.filter(paths, path)[:MAX_GUESSES]
    siblings = {each.rpartition("/")[2]: each for each in paths if each.rpartition("/")[0] == directory}
    similar = [siblings[each] for each in difflib.get_close_matches(name, siblings, MAX_GUESSES)]
    return [*similar, *(each for each in paths if each.endswith(f"/{name}") and each not in similar)][:MAX_GUESSES]


def _step(build: BuildRecord, number: int | None) -> StepRecord | None:
    return next((step for step in build.steps if step.index == number), None)


def _inputs(step: StepRecord | None) -> Iterator[tuple[str, str]]:
    files: Any = step.inputs.get("files", {}) if step else {}
    yield from sorted((str(name), str(digest)) for name, digest in files.items())


def _packages(store: BlobStore, build: BuildRecord, name: str) -> Sequence[Package]:
    if name not in build.evidence:
        return ()
    with store.open(build.evidence[name]) as blob:
        return read_packages(blob).packages


def _step_of_package(store: BlobStore, build: BuildRecord, package: Package) -> StepRecord | None:
    """The step that changed the list of the package's files in dpkg's database last; None when that is not known."""
    name = package.name
    for path in (f"/var/lib/dpkg/info/{name}.list", f"/var/lib/dpkg/info/{name}:{package.architecture}.list"):
        change = _change(store, build, path)
        if change:
            return _step(build, change.step)
    return None


def _fetched(store: BlobStore, build: BuildRecord, package: Package) -> Fetched | None:
    """The download of a package: NAME_VERSION_ARCH.deb (without the epoch), NAME-VERSION.ARCH.rpm or NAME-VERSION.apk."""
    if "fetches" not in build.evidence:
        return None
    from baker.core.model import Fetched

    version = package.version.partition(":")[2] or package.version
    names = (f"/{package.name}_{version}_", f"/{package.name}-{version}.")
    with store.open(build.evidence["fetches"]) as blob:
        for line in read_lines(blob):
            value = json.loads(line)
            url = value["url"].replace("%3a", ":").replace("%2b", "+").replace("%7e", "~")
            if value["digest"] and any(name in url for name in names):
                return Fetched(**value | {"headers": ()})
    return None
