"""Check the catalog for tampering: every record against its newest entry in the journal, and the journal's chain of hashes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from baker.catalog import tables
from baker.catalog.attestations import attestation_record
from baker.catalog.channels import channel_record, event_record
from baker.catalog.journal import ADOPTED, FIRST, CatalogJournal, append, digest_of, entry_faults, subject_of
from baker.catalog.mapping import build_record, image_record
from baker.catalog.proofs import REBUILD_COLUMNS
from baker.catalog.publications import publication_record
from baker.catalog.records import Rebuild
from baker.catalog.releases import release_record
from baker.catalog.repository import WriteTransaction
from baker.catalog.revocations import whole_revocation


@dataclass(frozen=True)
class Kind:
    """One kind of record: its table, the columns that identify a record, and the conversion of a row to its record."""

    table: Any
    names: tuple[str, ...]
    record: Callable[[Any], object]


def rebuild_record(row: tables.Rebuild) -> Rebuild:
    return Rebuild(**{name: getattr(row, name) for name in REBUILD_COLUMNS})


KINDS: Mapping[str, Kind] = {  # ordered so that a record comes after those that it refers to
    "build": Kind(tables.Build, ("id",), build_record),
    "image": Kind(tables.Image, ("id",), image_record),
    "publication": Kind(tables.Publication, ("kind", "region", "reference"), publication_record),
    "channel": Kind(tables.Channel, ("name", "channel"), channel_record),
    "channel-event": Kind(tables.ChannelEvent, ("serial",), event_record),
    "revocation": Kind(tables.Revocation, ("serial",), whole_revocation),
    "release": Kind(tables.Release, ("name", "number"), release_record),
    "attestation": Kind(tables.Attestation, ("serial",), attestation_record),
    "rebuild": Kind(tables.Rebuild, ("serial",), rebuild_record),
}
GONE = digest_of(None)


@dataclass(frozen=True)
class Fault:
    """A sign of tampering. `subject` is "journal" for the chain itself, else that of the record, such as "image:1f2e3d4c5b6a"."""

    subject: str
    message: str


def enter_all(session: Session, kind: str = ADOPTED) -> int:
    """Append a journal entry for every record that has none, and return their number.

    For records that were not written through the catalog's methods.
    """
    known = set(session.scalars(select(tables.Journal.subject).distinct()))
    count = 0
    for name, each in KINDS.items():
        for row in session.scalars(_rows(each)):
            subject = _subject(name, each, row)
            if subject not in known:
                append(session, kind, subject, each.record(row))
                count += 1
    return count


def adopt(connection: Connection) -> None:
    """Append entries for the records that are older than the journal, in the transaction of the migration that creates it."""
    with Session(connection) as session:
        enter_all(session)
        session.flush()


class Chain:
    """The checks of one catalog."""

    def __init__(self, session: WriteTransaction, journal: CatalogJournal) -> None:
        self._session, self._journal = session, journal

    def check(self, images: Collection[str] | None = None) -> Iterator[Fault]:
        """All faults: in the chain, in the set of existing records, and in the content of records.

        With `images` (IDs), the content of only the records about these images is checked: reading a hundred thousand builds takes minutes.
        """
        newest: dict[str, str] = {}
        serial, previous = 0, FIRST
        for entry in self._journal.entries():
            for message in entry_faults(entry, serial, previous):
                yield Fault("journal", message)
            serial, previous = entry.serial, entry.hash
            newest[entry.subject] = entry.digest
        with self._session() as session:
            found: set[str] = set()
            for name, each in KINDS.items():
                found |= self._names(session, name, each)
            yield from self._existence(found, newest)
            yield from self._content(session, newest, images)

    def _names(self, session: Session, name: str, each: Kind) -> set[str]:
        rows = session.execute(select(*(getattr(each.table, column) for column in each.names)))
        return {subject_of(name, *row) for row in rows}

    def _existence(self, found: set[str], newest: Mapping[str, str]) -> Iterator[Fault]:
        for subject in sorted(found - newest.keys()):
            how = "it was added by other means, or its entry was removed"
            yield Fault(subject, f"{_shown(subject)} is in the catalog, but the journal has no entry for it: {how}")
        for subject in sorted(newest.keys() - found):
            if newest[subject] != GONE:
                yield Fault(subject, f"{_shown(subject)} was registered, but is no longer in the catalog: it was deleted by other means")
        for subject in sorted(subject for subject in newest.keys() & found if newest[subject] == GONE):
            yield Fault(subject, f"{_shown(subject)} was removed, but is in the catalog again: it was added by other means")

    def _content(self, session: Session, newest: Mapping[str, str], images: Collection[str] | None) -> Iterator[Fault]:
        for name, each in KINDS.items():
            if images is not None and name not in ("build", "image") and not hasattr(each.table, "image"):
                continue
            query = _rows(each) if images is None else _rows(each).where(_about(each.table, images))
            for row in session.scalars(query):
                subject = _subject(name, each, row)
                if subject in newest and newest[subject] not in (GONE, digest_of(each.record(row))):
                    yield Fault(subject, f"the record of {_shown(subject)} was changed after it was registered")


def _about(table: Any, images: Collection[str]) -> Any:
    """The SQL condition that a row is about one of these images."""
    if table is tables.Build:
        return tables.Build.id.in_(select(tables.Image.build).where(tables.Image.id.in_(images)))
    return (tables.Image.id if table is tables.Image else table.image).in_(images)


def _rows(each: Kind) -> Any:
    """A query for all rows in order, which keeps a few hundred in memory at a time."""
    order = each.table.serial if hasattr(each.table, "serial") else getattr(each.table, each.names[0])
    return select(each.table).order_by(order).execution_options(yield_per=200)


def _subject(name: str, each: Kind, row: object) -> str:
    return subject_of(name, *(getattr(row, column) for column in each.names))


def _shown(subject: str) -> str:
    """Convert "image:1f2e3d4c5b6a" to "image 1f2e3d4c5b6a"."""
    return subject.replace("-", " ", 1).replace(":", " ", 1) if subject.startswith("channel-event:") else subject.replace(":", " ", 1)
