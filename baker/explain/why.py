"""Which step of which build put a file, or a package, into an image: asked of the builds' own records, the newest first.

Only the differences between an image and its parent are read (the evidence `changes`), so a long chain costs little; what no build
changed is the root's: it came with the source. Whole manifests are read where a build's changes are not on record, each once; lists of
packages where a build changed them.
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

NEAR = 3  # guesses


@dataclass(frozen=True)
class Reason:
    """What put a path there, or took it away. `step` is None when no step did: the source, sealing, a rule."""

    path: str
    change: str  # "added", "changed", "removed"
    image: ImageRecord
    build: BuildRecord
    step: StepRecord | None
    entry: FileEntry | None
    earlier: tuple[tuple[ImageRecord, str, StepRecord | None], ...] = ()  # what happened to it before, newest first
    inputs: tuple[tuple[str, str], ...] = ()  # files that the step read -> digest
    source: bool = False  # nobody in the chain touched it: it came with the root's source
    known: bool = True  # False: which step it was is not on record


@dataclass(frozen=True)
class PackageReason:
    """What brought a package in this version. `fetched`: the file that it came in, where that is on record."""

    package: Package
    before: str  # the version of before, "" where there was none
    image: ImageRecord
    build: BuildRecord
    step: StepRecord | None
    fetched: Fetched | None
    source: bool = False  # nobody in the chain brought it: it came with the root's source


def why(catalog: Catalog, store: BlobStore, image: ImageRecord, path: str) -> Reason:
    """Who put `path` into the image, or took it away. NotFoundError, with names that are near, when it never was there."""
    path = "/" + path.strip("/")
    line, builds = _line_of(catalog, image)

    @cache
    def listed(number: int) -> FileEntry | None:
        return _listed(store, builds[number], path)

    events: list[_Event] = []
    for number, build in enumerate(builds):
        known = "changes" in build.evidence
        change = _change(store, build, path) if known else _compared(builds, number, listed, path)
        if change:
            events.append(_Event(line[number], build, change, known or not build.steps))
    if not events:
        entry = listed(len(builds) - 1)
        if entry is None:
            near = _near(store, builds[0], path)
            hint = f"is it {' or '.join(near)}?" if near else f"bake show {image.name}@{image.version} --files lists what there is"
            raise NotFoundError(f"{image.name}@{image.version} has no {path}, and no image that it is made on had", hint=hint)
        return Reason(path, "added", line[-1], builds[-1], None, entry, source=True)
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
    known: bool  # whether it is on record which step it was


def why_package(catalog: Catalog, store: BlobStore, image: ImageRecord, name: str) -> PackageReason:
    """What brought a package into the image. NotFoundError when it has none of that name."""
    line, builds = _line_of(catalog, image)
    there = _packages(store, builds[0], "packages_after")
    package = next((each for each in there if each.name == name), None)
    if package is None:
        near = difflib.get_close_matches(name, [each.name for each in there], 3)
        raise NotFoundError(
            f"{image.name}@{image.version} has no package {name}",
            hint=f"it has {', '.join(near)}" if near else f"bake show {image.name}@{image.version} --packages lists them",
        )
    for each, build in zip(line, builds, strict=True):
        if "packages_before" in build.evidence and build.evidence["packages_before"] == build.evidence.get("packages_after"):
            continue  # the same list: this build changed no package
        before = next((old.version for old in _packages(store, build, "packages_before") if _same(old, package)), "")
        if before != package.version:
            return PackageReason(package, before, each, build, _step_of_package(store, build, package), _fetched(store, build, package))
    return PackageReason(package, "", line[-1], builds[-1], None, None, source=True)


def _line_of(catalog: Catalog, image: ImageRecord) -> tuple[Sequence[ImageRecord], Sequence[BuildRecord]]:
    """An image and what it is made on, and how each of them was made. NotFoundError where that is not on record."""
    line = catalog.history(image)
    found = catalog.builds_of(line)
    return line, [build or catalog.build_of(each) for each, build in zip(line, found, strict=True)]


def _same(left: Package, right: Package) -> bool:
    return (left.name, left.architecture, left.kind) == (right.name, right.architecture, right.kind)


def _change(store: BlobStore, build: BuildRecord, path: str) -> Change | None:
    """What the build did to a path."""
    found = _line(store, build, "changes", path)
    return parse(found) if found else None


def _compared(builds: Sequence[BuildRecord], number: int, listed: Callable[[int], FileEntry | None], path: str) -> Change | None:
    """The same told from two manifests, for a build whose changes are not on record: nobody knows the step then. Without an image below it
    is the source that the build started from, of which there is no manifest. `listed`: the path in a build's manifest."""
    root = number == len(builds) - 1
    if root and not builds[number].steps:
        return None  # the source's own
    after, before = listed(number), None if root else listed(number + 1)
    if after == before:
        return None
    return Change(path, "added" if before is None else "changed" if after else "removed", None, before, after)


def _listed(store: BlobStore, build: BuildRecord, path: str) -> FileEntry | None:
    """A path in the build's whole manifest."""
    found = _line(store, build, "manifest", path)
    return FileEntry(**found) if found else None


def _line(store: BlobStore, build: BuildRecord, evidence: str, path: str) -> dict[str, Any] | None:
    """The JSON line of a path; the blob is searched as text, and only a line that fits is parsed."""
    if evidence not in build.evidence:
        return None
    with store.open(build.evidence[evidence]) as blob:
        text = gzip.decompress(blob.read())
    wanted, place = f'"path":{json.dumps(path)}'.encode(), 0
    while (place := text.find(wanted, place)) >= 0:
        value: dict[str, Any] = json.loads(text[text.rfind(b"\n", 0, place) + 1 : text.find(b"\n", place)])
        if value["path"] == path:
            return value
        place += 1
    return None


def _near(store: BlobStore, build: BuildRecord, path: str) -> list[str]:
    """Paths that may be meant: those that a pattern fits, those called the same elsewhere, then what is called nearly so beside it."""
    if "manifest" not in build.evidence:
        return []
    directory, _, name = path.rpartition("/")
    with store.open(build.evidence["manifest"]) as blob:
        paths = [json.loads(line)["path"] for line in read_lines(blob)]
    if any(sign in path for sign in "*?["):
        return fnmatch.filter(paths, path)[:NEAR]
    beside = {each.rpartition("/")[2]: each for each in paths if each.rpartition("/")[0] == directory}
    found = [beside[each] for each in difflib.get_close_matches(name, beside, NEAR)]
    return [*found, *(each for each in paths if each.endswith(f"/{name}") and each not in found)][:NEAR]


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
    """The step that touched the package's own files in dpkg's database; None where that is not known."""
    name = package.name
    for path in (f"/var/lib/dpkg/info/{name}.list", f"/var/lib/dpkg/info/{name}:{package.architecture}.list"):
        change = _change(store, build, path)
        if change:
            return _step(build, change.step)
    return None


def _fetched(store: BlobStore, build: BuildRecord, package: Package) -> Fetched | None:
    """The file of a package among what was fetched: NAME_VERSION_ARCH.deb without the epoch, NAME-VERSION.ARCH.rpm, NAME-VERSION.apk."""
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
