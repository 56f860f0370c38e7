"""Compares the recorded inputs of images with the inputs that are available now (`bake outdated`). Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from baker.artifacts.codecs import read_packages
from baker.artifacts.disk import stored
from baker.catalog.records import BuildRecord, ImageRecord
from baker.catalog.reference import by_version
from baker.core.errors import BakeError, NotFoundError
from baker.disks.rootfs import open_root
from baker.lockfile.aptsources import of_root
from baker.lockfile.candidates import RELEASES, Candidates, Fetch, Listing, listings
from baker.lockfile.debversion import compare
from baker.lockfile.galaxy import newer as newer_galaxy
from baker.lockfile.write import INDEXES, fetched
from baker.machines.spec import spec_of
from baker.plan.plan import as_recorded
from baker.sources import small
from baker.sources.base import Context
from baker.template.ec2 import AmiSource, SourceAmiFilter, SsmParameterSource
from baker.template.model import FileSource

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog
    from baker.core.home import Home
    from baker.machines.base import Builder
    from baker.sources.base import Source
    from baker.store.base import BlobStore
    from baker.template.builders import BuilderConfig

__all__ = ["Examined", "Newer", "outdated"]


class LookupServices(Protocol):
    """The part of `Services` that the comparison uses."""

    @property
    def home(self) -> Home: ...
    @property
    def catalog(self) -> Catalog: ...
    @property
    def store(self) -> BlobStore: ...
    @property
    def builder(self) -> Callable[[BuilderConfig, str | None], Builder]: ...
    @property
    def source(self) -> Callable[[Any], Source]: ...


@dataclass(frozen=True)
class Newer:
    """An input of an image that differs now. `after` is "" if it does not exist any more."""

    what: str  # "base", "source", "template", "file", "package", "index", "role", "collection"
    name: str
    before: str
    after: str
    note: str = ""


@dataclass(frozen=True)
class Examined:
    """The result for one image. `unknown`: inputs that could not be compared, with the reasons."""

    image: ImageRecord
    newer: tuple[Newer, ...]
    unknown: tuple[str, ...]


def outdated(services: LookupServices, references: Sequence[str], fetch: Fetch | None = None) -> list[Examined]:
    """Examine the images in `references`, or the newest of each name. `fetch` None: download. NotFoundError for an unknown reference."""
    catalog = services.catalog
    wanted = references or sorted({image.name for image in catalog.images()})
    images = list({image.id: image for image in map(catalog.resolve, wanted)}.values())
    candidates = Candidates(fetch or small.fetch, lambda digest: _kept(services, digest))
    return [_Look(services, image, catalog.build_of(image), candidates).examined() for image in images]


@dataclass
class _Look:
    services: LookupServices
    image: ImageRecord
    build: BuildRecord
    candidates: Candidates

    def examined(self) -> Examined:
        self._unknown: list[str] = []
        found = [*self._base(), *self._source(), *self._files(), *self._packages(), *self._indexes(), *self._galaxy()]
        return Examined(self.image, tuple(found), tuple(self._unknown))

    @property
    def _spec(self) -> Mapping[str, Any]:
        spec: Mapping[str, Any] = self.build.source.get("spec", {})
        return spec

    def _base(self) -> Iterator[Newer]:
        """The parent: the image that the template's reference resolves to now, or else a newer image that it does not resolve to."""
        if self.build.source.get("kind") != "image":
            return
        catalog, pins = self.services.catalog, self.build.source["pins"]
        reference = self._spec.get("image") or self._spec.get("name") or pins["image"]
        named = [image for image in catalog.images(pins["image"]) if image.id not in catalog.revocations.all()]
        newest = by_version(named)[0] if named else None
        try:
            now = catalog.resolve(reference)
        except NotFoundError as error:
            yield Newer("base", pins["image"], pins["version"], "", error.message)
            return
        if now.id != pins["id"]:
            yield Newer("base", pins["image"], pins["version"], _version_or_id(now, pins["version"]), reference)
        elif newest and newest.version != now.version:
            yield Newer("base", pins["image"], pins["version"], newest.version, f"{reference} does not resolve to it")

    def _source(self) -> Iterator[Newer]:
        """A disk image file or an AMI. A source with a checksum cannot change; a debootstrap source is compared by its packages."""
        kind, before = self.build.source.get("kind"), str(self.build.source.get("digest", ""))
        if kind == "file":
            context = Context.for_peek(
                self.services.home, self.services.store, self.services.catalog, Path(self.build.template_path).parent
            )
            spec = FileSource.model_validate(dict(self._spec))
            path = context.base_dir / spec.path.expanduser()
            now = self.services.source(spec).peek(spec, context)
            if not path.exists():
                yield Newer("source", str(path), before, "")
            elif now is None or now.digest != before:
                yield Newer("source", str(path), before, now.digest if now else "changed")
        if kind == "ami":
            yield from self._ami()

    def _ami(self) -> Iterator[Newer]:
        pins = self.build.source["pins"]
        try:
            spec = _ami_spec(self._spec)
            if spec is None:
                return
            builder = self.services.builder(spec_of("ec2", self.build.shape), None)
            context = Context.for_peek(self.services.home, self.services.store, self.services.catalog, Path(), builder)
            now = self.services.source(spec).fetch(spec, context)
        except (BakeError, ValueError) as error:
            self._unknown.append(f"its AMI: {error.message if isinstance(error, BakeError) else error}")
            return
        if now.pins["ami"] != pins["ami"]:
            yield Newer("source", pins.get("name") or pins["region"], pins["ami"], now.pins["ami"], now.pins.get("name", ""))

    def _files(self) -> Iterator[Newer]:
        """The template and the files of its steps, if they are on this host."""
        template = Path(self.build.template_path)
        if not template.exists():
            self._unknown.append(f"its files: {template} is not on this host")
            return
        for name, before in sorted(self.build.inputs.items()):
            path, what = Path(name), "template" if Path(name) == template else "file"
            shown = path.name if what == "template" else name
            after = as_recorded(path, before)
            if after != before:
                yield Newer(what, shown, before, after)
            for new in sorted(path.iterdir()) if path.is_dir() and not path.is_symlink() else ():
                if str(new) not in self.build.inputs:
                    yield Newer("file", str(new), "", as_recorded(new, ""))

    def _packages(self) -> Iterator[Newer]:
        digest = self.build.evidence.get("packages_after", "")
        if not digest or not self.services.store.has(digest):
            self._unknown.append("its packages: their list is not on this host")
            return
        with self.services.store.open(digest) as blob:
            listed = read_packages(blob)
        self._unknown += [f"its packages: {reason}" for reason in listed.unread]
        installed = [each for each in listed.packages if each.kind == "deb"]
        found = self._listings() if installed else ()
        if installed and not found:
            self._unknown.append("its packages: their package indexes are not recorded")
        newest = self.candidates.newest(found)
        for package in installed:
            key = (package.name.partition(":")[0], package.architecture)
            now = newest.get(key, newest.get((key[0], "all"), ""))
            if now and compare(package.version, now) < 0:
                yield Newer("package", package.name, package.version, now)
        bases = {each.base for each in found}
        self._unknown += [f"{url}: {why}" for url, why in self.candidates.unread.items() if url.startswith(tuple(bases))]

    def _listings(self) -> tuple[Listing, ...]:
        """The package indexes that the build and its ancestors downloaded; if a debootstrap build has none, those of its apt."""
        found: list[Listing] = []
        for build in self._ancestors():
            found += listings(fetched(build, self.services.store), lambda digest: _kept(self.services, digest))
            found += self._of_disk(build) if build.source.get("kind") == "debootstrap" and not found else ()
        return tuple(dict.fromkeys(found))

    def _of_disk(self, build: BuildRecord) -> tuple[Listing, ...]:
        """The indexes that apt is configured for in a build's image; none if its disk is not on this host or cannot be read."""
        image = next(each for each in self.services.catalog.history(self.image) if each.build == build.id)
        try:
            with open_root(stored(image, self.services.store)) as root:
                return of_root(root, "amd64")
        except BakeError:
            return ()

    def _ancestors(self) -> Iterator[BuildRecord]:
        build: BuildRecord | None = self.build
        while build is not None:
            yield build
            parent = build.source.get("parent")
            build = self.services.catalog.build_of(self.services.catalog.image(parent)) if parent else None

    def _indexes(self) -> Iterator[Newer]:
        """Indexes of rpm and apk. Only a change of the whole index is reported."""
        import hashlib

        for url, before in sorted(fetched(self.build, self.services.store).items()):
            if url.endswith(INDEXES) and not url.endswith(RELEASES):
                try:
                    after = "sha256:" + hashlib.sha256(self.candidates.fetch(url)).hexdigest()
                except BakeError as error:
                    self._unknown.append(f"{url}: {error.message}")
                    continue
                if before != after:
                    yield Newer("index", url, before, after)

    def _galaxy(self) -> Iterator[Newer]:
        for what, name, before, after, note in newer_galaxy(self.build, self.services.store, self.candidates.fetch, self._unknown):
            yield Newer(what, name, before, after, note)


def _version_or_id(image: ImageRecord, before: str) -> str:
    return image.version if image.version != before else f"{image.version} ({image.id})"


def _ami_spec(spec: Mapping[str, Any]) -> SourceAmiFilter | SsmParameterSource | None:
    """The query that found the AMI; None when the template names the AMI by its id."""
    if "filters" in spec:
        return SourceAmiFilter.model_validate(dict(spec))
    return None if set(spec) <= set(AmiSource.model_fields) and "id" in spec else SsmParameterSource.model_validate(dict(spec))


def _kept(services: LookupServices, digest: str) -> bytes | None:
    if not services.store.has(digest):
        return None
    with services.store.open(digest) as blob:
        return blob.read()
