"""Publications of images: one row per AMI and region, or per publication of another kind. Removed publications keep their row."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from baker.catalog import tables
from baker.catalog.journal import append, subject_of
from baker.catalog.records import Publication
from baker.catalog.repository import PRESENT, Condition, Repository, both, equal
from baker.core.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

COLUMNS = ("image", "kind", "reference", "region", "account", "details", "created", "removed")


class Publications(Repository):
    """The publications of one catalog."""

    def add(self, publication: Publication) -> None:
        """Put a publication on record, or replace its record. UsageError when it is on record for another image."""
        with self.writing() as session:
            row = self._row(session, publication)
            if row is None:
                enter(session, publication)
            elif row.image == publication.image:
                _filled(row, publication)
                session.flush()
                append(session, "publication", _subject(row), publication_record(row))
            else:
                raise UsageError(
                    f"{publication.kind} {publication.reference} is on record as a publication of image {row.image}",
                    hint="one publication cannot belong to two images",
                    code="publication.other-image",
                )

    def of(self, image_id: str, *, kind: str | None = None, region: str | None = None, all: bool = False) -> list[Publication]:  # noqa: A002
        """The publications of an image (of one kind, in one region), oldest first; with `all`, also those that were removed."""
        condition = equal(image=image_id, kind=kind, region=region)
        return self._records(condition if all else both(condition, PRESENT))

    def find(self, reference: str) -> list[Publication]:
        """The publications with this reference ("ami-0abc..."), also removed ones."""
        return self._records(equal(reference=reference))

    def remove(self, publication: Publication, *, at: str) -> Publication:
        """Mark a publication as removed. NotFoundError when it is not on record."""
        with self.writing() as session:
            row = self._row(session, publication)
            if row is None:
                raise NotFoundError(
                    f"{publication.kind} {publication.reference} is not on record as a publication", code="publication.not-found"
                )
            if row.removed is None:
                row.removed = at
                session.flush()
                append(session, "withdrawal", _subject(row), publication_record(row))
            return replace(publication, removed=row.removed)

    def _row(self, session: Session, publication: Publication) -> tables.Publication | None:
        return session.scalar(tables.Publication.where(kind=publication.kind, region=publication.region, reference=publication.reference))

    def _records(self, condition: Condition) -> list[Publication]:
        with self.reading() as reader:
            return [publication_record(row) for row in reader.select("publications", condition)]


def enter(session: Session, publication: Publication) -> None:
    """Put a new publication on record."""
    row = _filled(tables.Publication(), publication)
    session.add(row)
    session.flush()
    append(session, "publication", _subject(row), publication_record(row))


def _subject(row: tables.Publication) -> str:
    return subject_of("publication", row.kind, row.region, row.reference)


def _filled(row: tables.Publication, publication: Publication) -> tables.Publication:
    for name in COLUMNS:
        setattr(row, name, getattr(publication, name))
    row.details, row.snapshots = dict(publication.details), list(publication.snapshots)
    return row


def publication_record(row: Any) -> Publication:
    return Publication(**{name: getattr(row, name) for name in COLUMNS}, snapshots=tuple(row.snapshots))
