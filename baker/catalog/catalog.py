"""The catalog: the records of all images and builds. It takes and returns frozen records."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from baker.catalog import lookup, reference, tables
from baker.catalog.attestations import Attestations
from baker.catalog.channels import Channels
from baker.catalog.imports import Imports
from baker.catalog.journal import CatalogJournal, append, subject_of
from baker.catalog.mapping import build_row, image_record, image_row
from baker.catalog.proofs import Proofs
from baker.catalog.publications import Publications, enter
from baker.catalog.rebuilds import Rebuilds
from baker.catalog.records import BuildRecord, ImageRecord, Publication
from baker.catalog.releases import Releases
from baker.catalog.repository import PRESENT, Condition, IntegrityError, Reader, both, equal
from baker.catalog.revocations import Revocations
from baker.catalog.sqlite import BUSY_SECONDS, SqliteFile
from baker.core.errors import BusyError, NotFoundError, UsageError
from baker.core.host_facts import now

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from baker.catalog.chain import Fault
    from baker.catalog.database import Reads


REFERENCED = """
    SELECT image_blobs.digest FROM image_blobs JOIN images ON images.id = image_blobs.image WHERE images.removed IS NULL
    UNION SELECT digest FROM evidence
    UNION SELECT digest FROM attestations
    UNION SELECT report FROM rebuilds
"""


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

    def __init__(self, place: Path | str, *, busy_seconds: float = BUSY_SECONDS) -> None:
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
        self.imports = Imports(self._session, self._writing)

    @cached_property
    def _reads(self) -> Reads:
        if "://" not in str(self.place):
            return SqliteFile(Path(self.place).absolute(), self.busy_seconds, _migrate)
        from baker.catalog import database

        return database.reads(str(self.place), self.busy_seconds)

    @cached_property
    def _engine(self) -> Engine:
        from baker.catalog import database

        return database.open_engine(self.place, busy_seconds=self.busy_seconds)

    def close(self) -> None:
        """Close the database. The next use opens it again."""
        reads, engine = self.__dict__.pop("_reads", None), self.__dict__.pop("_engine", None)
        if reads is not None:
            reads.close()
        if engine is not None:
            engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[Reader]:
        with self._reads.reading() as reader:
            yield reader

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        """Run the body in one transaction: all of it takes effect, or nothing."""
        from baker.catalog import database

        with database.writing(self.place, lambda: self._engine) as session:
            yield session

    @contextmanager
    def _session(self) -> Iterator[Session]:
        """Open a transaction that reads, with the row objects that writing uses."""
        from baker.catalog import database

        with database.reading_session(self.place, lambda: self._engine) as session:
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
        except IntegrityError as error:
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
        with self._session() as session:
            row = self._image_row(session, image_id)
            self._check_free(session, row, [child for child in self._children(session, row.id) if child.id not in along], force)

    def publish(self, publication: Publication) -> None:
        """Put a publication on record. See Publications.add."""
        self.published.add(publication)

    def publications(self, image_id: str, *, kind: str | None = None, region: str | None = None) -> list[Publication]:
        """The present publications of an image, oldest first."""
        return self.published.of(image_id, kind=kind, region=region)

    def check_chain(self, images: Collection[str] | None = None) -> Iterator[Fault]:
        """The faults of the journal and the records; with `images`, of the content of only the records about these. See Chain.check."""
        from baker.catalog.chain import Chain

        return Chain(self._session, self.journal).check(images)

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
        with self._reading() as reader:
            condition = both(lookup.labelled(reader, wanted), equal(name=name))
            if not all:
                condition = both(condition, PRESENT)
            if pattern is not None:
                condition = both(condition, lookup.named_like(reader, pattern, removed=all))
            images = lookup.images(reader, condition)
        found = (image for image in images if lookup.has_labels(image.labels, wanted))
        return [image for image in found if pattern is None or fnmatchcase(image.name, pattern)]

    def images_by_id(self, ids: Collection[str]) -> dict[str, ImageRecord]:
        """ID -> image, for those of `ids` that exist, also removed ones."""
        with self._reading() as reader:
            rows = list(reader.rows_for("SELECT * FROM images WHERE {where}", "id", ids))
            return {image.id: image for image in lookup.with_blobs(reader, rows)}

    def image(self, image_id: str) -> ImageRecord:
        """The image with this full ID, also a removed one. NotFoundError when there never was one."""
        found = self._images(equal(id=image_id))
        if not found:
            raise _no_image(image_id)
        return found[0]

    def resolve(self, text: str) -> ImageRecord:
        """The image that a reference means; see baker.catalog.reference.

        Removed images are not found. Revoked images are found when they are named exactly; to use one, call `check_usable` first.
        """
        with self._reading() as reader:
            candidates = lookup.candidates(reader, text.strip())
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
        condition = both(PRESENT, equal(fingerprint=fingerprint, name=name, version=version))
        found = self._images(condition, "verified DESC, serial DESC LIMIT 1")
        return found[0] if found else None

    def history(self, image: ImageRecord | str) -> tuple[ImageRecord, ...]:
        """An image (given as a record or an ID), then its ancestors up to the root, including removed ones."""
        image_id = image.id if isinstance(image, ImageRecord) else image
        with self._reading() as reader:
            found = tuple(lookup.line(reader, image_id))
        if not found:
            raise _no_image(image_id)
        return found

    def children(self, image_id: str) -> list[ImageRecord]:
        """The children of an image that are not removed, last made first."""
        return self._images(both(PRESENT, equal(parent=image_id)))

    def tree(self) -> tuple[LineageNode, ...]:
        """All images as trees below their root images. A removed image is included only while it has descendants that are not removed."""
        below: dict[str | None, list[ImageRecord]] = {}
        for image in self.images(all=True):
            below.setdefault(image.parent, []).append(image)

        def nodes(parent: str | None) -> tuple[LineageNode, ...]:
            found = (LineageNode(image, nodes(image.id)) for image in below.get(parent, ()))
            return tuple(node for node in found if node.children or not node.image.removed)

        return nodes(None)

    def _images(self, condition: Condition, order: str = "serial DESC") -> list[ImageRecord]:
        with self._reading() as reader:
            return lookup.images(reader, condition, order)

    def _image_row(self, session: Session, image_id: str) -> tables.Image:
        row = session.scalar(tables.Image.where(id=image_id))
        if row is None:
            raise _no_image(image_id)
        return row

    def _children(self, session: Session, image_id: str) -> list[ImageRecord]:
        query = tables.Image.where(parent=image_id, removed=None).order_by(tables.Image.serial.desc())
        return [image_record(row) for row in session.scalars(query)]

    def _check_free(self, session: Session, row: tables.Image, children: Sequence[ImageRecord], force: bool) -> None:
        """Raise BusyError while a channel points to the image, or (unless `force`) while it has children."""
        channels = [each.channel for each in session.scalars(tables.Channel.where(image=row.id).order_by(tables.Channel.channel))]
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
        found = self._builds(lookup.begins("id", build_id), "serial DESC LIMIT 9") if build_id else []
        if not found:
            raise NotFoundError(
                f"there is no build {build_id!r}", hint="`bake history` and `bake show IMAGE` show builds", code="build.not-found"
            )
        if len(found) > 1:
            shown = "".join(f"\n    {one.id}  {one.template_name}@{one.template_version}  {one.started}  {one.status}" for one in found)
            raise UsageError(f"{build_id} matches several builds:{shown}", hint="give more digits", code="build.ambiguous")
        return found[0]

    def build_of(self, image: ImageRecord) -> BuildRecord:
        """The build that made an image. NotFoundError when it is not on record."""
        return self.build(image.build)

    def builds_of(self, images: Sequence[ImageRecord]) -> list[BuildRecord | None]:
        """The build that made each image, in order; None when it is not on record."""
        with self._reading() as reader:
            rows = list(reader.rows_for("SELECT * FROM builds WHERE {where}", "id", {image.build for image in images}))
            found = {build.id: build for build in lookup.with_parts(reader, rows)}
        return [found.get(image.build) for image in images]

    def builds(self, name: str | None = None, limit: int | None = None) -> list[BuildRecord]:
        """All builds, or those of templates with one name, the last registered first, including failed builds."""
        return self._builds(equal(template_name=name), "serial DESC" if limit is None else f"serial DESC LIMIT {limit:d}")

    def was_verified(self, fingerprint: str, verify_key: str) -> bool:
        """Whether an image with this fingerprint has ever passed the tests with this key."""
        where, values = equal(fingerprint=fingerprint, verify_key=verify_key, verify="passed")
        with self._reading() as reader:
            return reader.row(f"SELECT id FROM builds WHERE {where} LIMIT 1", **values) is not None

    def last_planned(self, name: str) -> BuildRecord | None:
        """The last build of a template whose steps have keys, or None. A build that failed before its plan has none."""
        keyed: Condition = "EXISTS (SELECT 1 FROM steps WHERE steps.build = builds.id AND steps.key <> '')", {}
        found = self._builds(both(equal(template_name=name), keyed), "serial DESC LIMIT 1")
        return found[0] if found else None

    def _builds(self, condition: Condition, order: str = "serial DESC") -> list[BuildRecord]:
        with self._reading() as reader:
            return lookup.builds(reader, condition, order)

    # --- blobs ---------------------------------------------------------------------------------------------------

    def referenced_digests(self) -> set[str]:
        """The digests of all blobs in use: disks of images that are not removed, evidence, attestations and rebuild reports."""
        with self._reading() as reader:
            return {row.digest for row in reader.stream(REFERENCED)}


def _migrate(path: Path, busy_seconds: float) -> None:
    from baker.catalog import database

    database.migrate(path, busy_seconds)


def _no_image(image_id: str) -> NotFoundError:
    return NotFoundError(f"there is no image {image_id}", hint="`bake images` lists all images", code="image.not-found")


def _in_use(row: tables.Image, children: Sequence[ImageRecord]) -> BusyError:
    names = ", ".join(f"{child.name}@{child.version} ({child.id})" for child in children)
    return BusyError(
        f"{row.name}@{row.version} ({row.id}) is the parent of {names}",
        hint="remove those first, or use --force",
        code="image.has-children",
    )
