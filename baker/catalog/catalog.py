"""The catalog: the records of all images and builds. It takes and returns frozen records."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, Select, exc, select, union
from sqlalchemy.orm import Session

from baker.catalog import database, lookup, reference, tables
from baker.catalog.attestations import Attestations
from baker.catalog.chain import Chain, Fault, enter_all
from baker.catalog.channels import Channels
from baker.catalog.imports import Imports
from baker.catalog.journal import CatalogJournal, append, subject_of
from baker.catalog.mapping import build_record, build_row, image_record, image_row
from baker.catalog.proofs import Proofs
from baker.catalog.publications import Publications, enter
from baker.catalog.rebuilds import Rebuilds
from baker.catalog.records import BuildRecord, ImageRecord, Publication
from baker.catalog.releases import Releases
from baker.catalog.revocations import Revocations
from baker.core.errors import BusyError, NotFoundError, UsageError
from baker.core.host_facts import now


@dataclass(frozen=True)
class LineageNode:
    """An image and its children, the newest first."""

    image: ImageRecord
    children: tuple[LineageNode, ...]


class Catalog:
    """The records in one database, given as a path for SQLite or as an SQLAlchemy URL. It is opened, and made or migrated, at first use.

    Every method can raise HostError (the database cannot be opened, is damaged or read-only, or has a newer schema) and BusyError (the
    database is locked for too long).
    """

    def __init__(self, place: Path | str, *, busy_seconds: float = database.BUSY_SECONDS) -> None:
        self.place = place
        self.busy_seconds = busy_seconds
        self.published = Publications(self._reading, self._writing)
        self.channels = Channels(self._reading, self._writing)
        self.revocations = Revocations(self._reading, self._writing)
        self.releases = Releases(self._reading, self._writing)
        self.attestations = Attestations(self._reading, self._writing)
        self.journal = CatalogJournal(self._reading, self._writing)
        self.proofs = Proofs(self._reading, self._writing)
        self.rebuilds = Rebuilds(self._reading, self._writing)
        self.imports = Imports(self._reading, self._writing)

    @cached_property
    def _engine(self) -> Engine:
        return database.open_engine(self.place, busy_seconds=self.busy_seconds)

    def close(self) -> None:
        """Close the database. The next use opens it again."""
        engine = self.__dict__.pop("_engine", None)
        if engine is not None:
            engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        with database.translated(self.place), Session(self._engine) as session:
            yield session

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        """Run the body in one transaction: all of it takes effect, or nothing."""
        with database.translated(self.place), Session(database.writing(self._engine)) as session, session.begin():
            yield session

    # --- writing -------------------------------------------------------------------------------------------------

    def register(self, build: BuildRecord, image: ImageRecord | None, publications: Sequence[Publication] = ()) -> None:
        """Write the records of a build, of its image and of its publications, in one transaction: the commit point of a build.

        UsageError, and nothing is written, when an ID is taken already or the image's parent is not in the catalog.
        """
        try:
            with self._writing() as session:
                session.add(build_row(build))
                session.flush()
                append(session, "build", subject_of("build", build.id), build)
                if image is not None:
                    session.add(image_row(image))
                    session.flush()
                    append(session, "image", subject_of("image", image.id), image)
                for each in publications:
                    enter(session, each)
        except exc.IntegrityError as error:
            what = f"image {image.id} of build {build.id}" if image else f"build {build.id}"
            raise UsageError(
                f"cannot register {what}: its ID is taken, or its parent is not in the catalog", code="catalog.conflict"
            ) from error

    def remove(self, image_id: str, *, force: bool = False) -> ImageRecord:
        """Mark an image as removed. The next garbage collection deletes its blobs; the record of its build stays.

        BusyError while a channel points to it. BusyError also while it is the parent of other images, unless `force`: its children then
        keep its blobs and continue to work.
        """
        with self._writing() as session:
            row = self._image_row(session, image_id)
            if row.removed:
                raise NotFoundError(f"image {row.id} ({row.name}@{row.version}) was removed at {row.removed}", code="image.removed")
            self._check_free(session, row, self._children(session, row.id), force)
            row.removed = now()
            session.flush()
            append(session, "removal", subject_of("image", row.id), image_record(row))
            return image_record(row)

    def check_removable(self, image_id: str, *, force: bool = False, along: Collection[str] = ()) -> None:
        """Raise BusyError as `remove` does. Children whose IDs are in `along` do not count, because they are to be removed as well."""
        with self._reading() as session:
            row = self._image_row(session, image_id)
            self._check_free(session, row, [child for child in self._children(session, row.id) if child.id not in along], force)

    def publish(self, publication: Publication) -> None:
        """Put a publication on record. See Publications.add."""
        self.published.add(publication)

    def publications(self, image_id: str, *, kind: str | None = None, region: str | None = None) -> list[Publication]:
        """The present publications of an image, oldest first."""
        return self.published.of(image_id, kind=kind, region=region)

    def enter_all(self, kind: str) -> int:
        """Append journal entries for records that were not written through this class, and return their number. See chain.enter_all."""
        with self._writing() as session:
            return enter_all(session, kind)

    def check_chain(self, images: Collection[str] | None = None) -> Iterator[Fault]:
        """The faults of the journal and the records; with `images`, of the content of only the records about these. See Chain.check."""
        return Chain(self._reading, self.journal).check(images)

    # --- images --------------------------------------------------------------------------------------------------

    def images(
        self,
        name: str | None = None,
        labels: lookup.Labels | None = None,
        all: bool = False,  # noqa: A002
        pattern: str | None = None,
    ) -> list[ImageRecord]:
        """The images, last made first: of one name, or of names that match a shell pattern, and with all the given labels.

        A label with the value None matches any value. With `all`, removed images are included.
        """
        wanted = dict(labels or {})
        query = lookup.labelled(select(tables.Image).order_by(tables.Image.serial.desc()), wanted)
        if name is not None:
            query = query.where(tables.Image.name == name)
        if not all:
            query = query.where(tables.Image.removed.is_(None))
        if pattern is not None:
            with self._reading() as session:
                query = lookup.named_like(session, query, pattern, removed=all)
        found = (image for image in self._images(query) if lookup.has_labels(image.labels, wanted))
        return [image for image in found if pattern is None or fnmatchcase(image.name, pattern)]

    def images_by_id(self, ids: Collection[str]) -> dict[str, ImageRecord]:
        """ID -> image, for those of `ids` that exist, also removed ones."""
        found: list[ImageRecord] = []
        for some in lookup.batches(sorted(set(ids))):
            found += self._images(select(tables.Image).where(tables.Image.id.in_(some)))
        return {image.id: image for image in found}

    def image(self, image_id: str) -> ImageRecord:
        """The image with this full ID, also a removed one. NotFoundError when there never was one."""
        with self._reading() as session:
            return image_record(self._image_row(session, image_id))

    def resolve(self, text: str) -> ImageRecord:
        """The image that a reference means; see baker.catalog.reference.

        Removed images are not found. Revoked images are found when they are named exactly; whoever uses one calls `check_usable` first.
        """
        with self._reading() as session:
            candidates = lookup.candidates(session, text.strip())
        found = reference.resolve(text, candidates, self._candidate, self.revocations.in_force(now()))
        return self.image(found.id)

    def _candidate(self, name: str, channel: str) -> reference.Candidate | None:
        image = self.channel(name, channel)
        return reference.Candidate(image.id, image.name, image.version, image.digest) if image else None

    def check_usable(self, image: ImageRecord, what_for: str) -> None:
        """Raise RevokedError when an image is revoked now. `what_for` ends the sentence: "as a source", "in a channel"."""
        self.revocations.check(image, what_for, at=now())

    def channel(self, name: str, channel: str) -> ImageRecord | None:
        """The image that a channel of `name` points to, or None when there is no such channel."""
        found = self.channels.get(name, channel)
        return self.image(found.image) if found else None

    def by_fingerprint(self, fingerprint: str, *, name: str | None = None, version: str | None = None) -> ImageRecord | None:
        """The image with this fingerprint (and name and version), preferably a verified one, then the last made; None for none."""
        query = select(tables.Image).where(tables.Image.fingerprint == fingerprint, tables.Image.removed.is_(None))
        if name is not None:
            query = query.where(tables.Image.name == name)
        if version is not None:
            query = query.where(tables.Image.version == version)
        found = self._images(query.order_by(tables.Image.verified.desc(), tables.Image.serial.desc()).limit(1))
        return found[0] if found else None

    def history(self, image: ImageRecord | str) -> tuple[ImageRecord, ...]:
        """An image (given as a record or an ID), then its ancestors up to the root, including removed ones."""
        image_id = image.id if isinstance(image, ImageRecord) else image
        with self._reading() as session:
            return tuple(image_record(row) for row in lookup.line(session, image_id)) or (self.image(image_id),)

    def children(self, image_id: str) -> list[ImageRecord]:
        """The children of an image that are not removed, last made first."""
        with self._reading() as session:
            return self._children(session, image_id)

    def tree(self) -> tuple[LineageNode, ...]:
        """All images as trees below their root images. A removed image is included only while it has descendants that are not removed."""
        below: dict[str | None, list[ImageRecord]] = {}
        for image in self.images(all=True):
            below.setdefault(image.parent, []).append(image)

        def nodes(parent: str | None) -> tuple[LineageNode, ...]:
            found = (LineageNode(image, nodes(image.id)) for image in below.get(parent, ()))
            return tuple(node for node in found if node.children or not node.image.removed)

        return nodes(None)

    def _images(self, query: Select[Any]) -> list[ImageRecord]:
        with self._reading() as session:
            return [image_record(row) for row in session.scalars(query)]

    def _image_row(self, session: Session, image_id: str) -> tables.Image:
        row = session.scalar(select(tables.Image).where(tables.Image.id == image_id))
        if row is None:
            raise NotFoundError(f"there is no image {image_id}", hint="`bake images` lists all images", code="image.not-found")
        return row

    def _children(self, session: Session, image_id: str) -> list[ImageRecord]:
        query = select(tables.Image).where(tables.Image.parent == image_id, tables.Image.removed.is_(None))
        return [image_record(row) for row in session.scalars(query.order_by(tables.Image.serial.desc()))]

    def _check_free(self, session: Session, row: tables.Image, children: Sequence[ImageRecord], force: bool) -> None:
        """Raise BusyError while a channel points to the image, or (unless `force`) while it has children."""
        channels = list(session.scalars(select(tables.Channel.channel).where(tables.Channel.image == row.id).order_by("channel")))
        if channels:
            raise BusyError(
                f"{row.name}@{row.version} ({row.id}) is in use by the channel {row.name}@{f', {row.name}@'.join(channels)}",
                hint=f"bake channel {row.name} {channels[0]} --set OTHER, or --unset",
                code="image.in-channel",
            )
        if children and not force:
            raise _in_use(row, children)

    # --- builds --------------------------------------------------------------------------------------------------

    def build(self, build_id: str) -> BuildRecord:
        """The build with this ID or prefix of an ID. NotFoundError when there is none, UsageError when there are several."""
        build = tables.Build
        query = select(build).where(lookup.begins(build.id, build_id), build.id.startswith(build_id, autoescape=True))
        query = query.order_by(build.serial.desc()).limit(9)
        with self._reading() as session:
            rows = list(session.scalars(query)) if build_id else []
            if not rows:
                raise NotFoundError(
                    f"there is no build {build_id!r}", hint="`bake history` and `bake show IMAGE` show builds", code="build.not-found"
                )
            if len(rows) > 1:
                shown = "".join(f"\n    {row.id}  {row.template_name}@{row.template_version}  {row.started}  {row.status}" for row in rows)
                raise UsageError(f"{build_id} matches several builds:{shown}", hint="give more digits", code="build.ambiguous")
            return build_record(rows[0])

    def build_of(self, image: ImageRecord) -> BuildRecord:
        """The build that made an image. NotFoundError when it is not on record."""
        return self.build(image.build)

    def builds_of(self, images: Sequence[ImageRecord]) -> list[BuildRecord | None]:
        """The build that made each image, in order; None when it is not on record."""
        found: dict[str, BuildRecord] = {}
        with self._reading() as session:
            for ids in lookup.batches(sorted({image.build for image in images})):
                rows = session.scalars(select(tables.Build).where(tables.Build.id.in_(ids)))
                found |= {row.id: build_record(row) for row in rows}
        return [found.get(image.build) for image in images]

    def builds(self, name: str | None = None, limit: int | None = None) -> list[BuildRecord]:
        """All builds, or those of templates with one name, the last registered first, including failed builds."""
        query = select(tables.Build).order_by(tables.Build.serial.desc())
        if name is not None:
            query = query.where(tables.Build.template_name == name)
        if limit is not None:
            query = query.limit(limit)
        with self._reading() as session:
            return [build_record(row) for row in session.scalars(query)]

    def was_verified(self, fingerprint: str, verify_key: str) -> bool:
        """Whether an image with this fingerprint has ever passed the tests with this key."""
        query = select(tables.Build.id).where(
            tables.Build.fingerprint == fingerprint, tables.Build.verify_key == verify_key, tables.Build.verify == "passed"
        )
        with self._reading() as session:
            return session.scalar(query.limit(1)) is not None

    def last_planned(self, name: str) -> BuildRecord | None:
        """The last build of a template whose steps have keys, or None. A build that failed before its plan has none."""
        keyed = select(tables.Step.build).where(tables.Step.key != "")
        query = select(tables.Build).where(tables.Build.template_name == name, tables.Build.id.in_(keyed))
        with self._reading() as session:
            row = session.scalar(query.order_by(tables.Build.serial.desc()).limit(1))
            return build_record(row) if row else None

    # --- blobs ---------------------------------------------------------------------------------------------------

    def referenced_digests(self) -> set[str]:
        """The digests of all blobs in use: disks of images that are not removed, evidence, attestations and rebuild reports."""
        disks = (
            select(tables.ImageBlob.digest)
            .join(tables.Image, tables.Image.id == tables.ImageBlob.image)
            .where(tables.Image.removed.is_(None))
        )
        with self._reading() as session:
            kept = (tables.Evidence.digest, tables.Attestation.digest, tables.Rebuild.report)
            return set(session.scalars(union(disks, *(select(column) for column in kept))))


def _in_use(row: tables.Image, children: Sequence[ImageRecord]) -> BusyError:
    names = ", ".join(f"{child.name}@{child.version} ({child.id})" for child in children)
    return BusyError(
        f"{row.name}@{row.version} ({row.id}) is the parent of {names}",
        hint="remove those first, or use --force",
        code="image.has-children",
    )
