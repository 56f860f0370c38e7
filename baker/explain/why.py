"""Which step of which build put a file, or a package, into an image: asked of the builds' own records, the newest first.

Only the differences between an image and its parent are read (the evidence `changes`), so a long chain costs little; what no build
changed is the root's: it came with the source.
"""

from __future__ import annotations

import difflib
import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from baker.catalog.evidence import read_lines, read_packages
from baker.catalog.records import BuildRecord, ImageRecord, StepRecord
from baker.errors import NotFoundError
from baker.explain.changes import Change, read
from baker.httpcache.record import Fetched
from baker.model import FileEntry, Package

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog
    from baker.store.base import BlobStore


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
    inputs: tuple[tuple[str, str], ...] = field(default_factory=tuple)  # files that the step read -> digest


@dataclass(frozen=True)
class PackageReason:
    """What brought a package in this version. `fetched`: the file that it came in, where that is on record."""

    package: Package
    before: str  # the version of before, "" where there was none
    image: ImageRecord
    build: BuildRecord
    step: StepRecord | None
    fetched: Fetched | None


def why(catalog: Catalog, store: BlobStore, image: ImageRecord, path: str) -> Reason:
    """Who put `path` into the image. NotFoundError, with names that are near, when it never was there."""
    path = "/" + path.strip("/")
    line = catalog.history(image)
    events: list[tuple[ImageRecord, BuildRecord, Change]] = []
    for each in line:
        build = catalog.build_of(each)
        change = _change(store, build, path)
        if change:
            events.append((each, build, change))
    root = line[-1]
    if not events:
        build = catalog.build_of(root)
        entry = _listed(store, build, path)
        if entry is None:
            near = difflib.get_close_matches(path, _paths(store, build, path), 3, 0.6)
            hint = f"is it {' or '.join(near)}?" if near else f"bake export {image.name}@{image.version} --format tar lists what there is"
            raise NotFoundError(f"{image.name}@{image.version} has no {path}, and no image that it is made on had", hint=hint)
        return Reason(path, "added", root, build, None, entry)
    found, build, change = events[0]
    earlier = tuple((each, past.change, _step(record, past.step)) for each, record, past in events[1:])
    step = _step(build, change.step)
    return Reason(path, change.change, found, build, step, change.after, earlier, tuple(_inputs(step)))


def why_package(catalog: Catalog, store: BlobStore, image: ImageRecord, name: str) -> PackageReason:
    """What brought a package into the image. NotFoundError when it has none of that name."""
    package = next((each for each in _packages(store, catalog.build_of(image), "packages_after") if each.name == name), None)
    if package is None:
        known = [each.name for each in _packages(store, catalog.build_of(image), "packages_after")]
        near = difflib.get_close_matches(name, known, 3)
        raise NotFoundError(
            f"{image.name}@{image.version} has no package {name}", hint=f"it has {', '.join(near)}" if near else "bake sbom lists them"
        )
    for each in catalog.history(image):
        build = catalog.build_of(each)
        before = next((old.version for old in _packages(store, build, "packages_before") if _same(old, package)), "")
        if before != package.version:
            return PackageReason(package, before, each, build, _step_of_package(store, build, name), _fetched(store, build, package))
    root = catalog.history(image)[-1]
    return PackageReason(package, "", root, catalog.build_of(root), None, None)


def _same(left: Package, right: Package) -> bool:
    return (left.name, left.architecture, left.kind) == (right.name, right.architecture, right.kind)


def _change(store: BlobStore, build: BuildRecord, path: str) -> Change | None:
    """What the build did to a path; its blob is searched as text, and only a line that fits is parsed."""
    if "changes" not in build.evidence:
        return None
    wanted = f'"path":{json.dumps(path)}'
    with store.open(build.evidence["changes"]) as blob:
        line = next((line for line in read_lines(blob) if wanted in line and json.loads(line)["path"] == path), None)
    return next(iter(_parsed(line)), None) if line else None


def _parsed(line: str) -> Iterator[Change]:
    import io

    yield from read(io.BytesIO(gzip.compress(line.encode() + b"\n", 1)))


def _listed(store: BlobStore, build: BuildRecord, path: str) -> FileEntry | None:
    """A path in the build's whole manifest."""
    if "manifest" not in build.evidence:
        return None
    wanted = f'"path":{json.dumps(path)}'
    with store.open(build.evidence["manifest"]) as blob:
        for line in read_lines(blob):
            if wanted in line and (value := json.loads(line))["path"] == path:
                return FileEntry(**value)
    return None


def _paths(store: BlobStore, build: BuildRecord, path: str) -> list[str]:
    """Paths with a part of the same name, to guess from."""
    name = path.rpartition("/")[2]
    if "manifest" not in build.evidence:
        return []
    with store.open(build.evidence["manifest"]) as blob:
        return [json.loads(line)["path"] for line in read_lines(blob) if name in line]


def _step(build: BuildRecord, number: int | None) -> StepRecord | None:
    return next((step for step in build.steps if step.index == number), None)


def _inputs(step: StepRecord | None) -> Iterator[tuple[str, str]]:
    files: Any = step.inputs.get("files", {}) if step else {}
    yield from sorted((str(name), str(digest)) for name, digest in files.items())


def _packages(store: BlobStore, build: BuildRecord, name: str) -> Sequence[Package]:
    if name not in build.evidence:
        return ()
    with store.open(build.evidence[name]) as blob:
        return read_packages(blob)


def _step_of_package(store: BlobStore, build: BuildRecord, name: str) -> StepRecord | None:
    """The step that touched the package's own files in dpkg's database; None where that is not known."""
    for path in (f"/var/lib/dpkg/info/{name}.list", f"/var/lib/dpkg/info/{name}:amd64.list"):
        change = _change(store, build, path)
        if change:
            return _step(build, change.step)
    return None


def _fetched(store: BlobStore, build: BuildRecord, package: Package) -> Fetched | None:
    """The file of a package among what was fetched: NAME_VERSION_ARCH.deb without the epoch, NAME-VERSION.ARCH.rpm, NAME-VERSION.apk."""
    if "fetches" not in build.evidence:
        return None
    version = package.version.partition(":")[2] or package.version
    names = (f"/{package.name}_{version}_", f"/{package.name}-{version}.")
    with store.open(build.evidence["fetches"]) as blob:
        for line in read_lines(blob):
            value = json.loads(line)
            url = value["url"].replace("%3a", ":").replace("%2b", "+").replace("%7e", "~")
            if value["digest"] and any(name in url for name in names):
                return Fetched(**value | {"headers": ()})
    return None
