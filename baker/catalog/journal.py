"""A hash chain over everything that the catalog registers: a record that was changed, added or taken away behind bake's back is found.

Every transaction that registers something appends an entry: the SHA-256 of the record as canonical JSON (RFC 8785), and a hash over the
entry's own fields with the hash of the entry before it. So nobody can change a record without changing every entry after it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

import rfc8785
from sqlalchemy import select
from sqlalchemy.orm import Session

from baker.catalog import tables
from baker.catalog.part import Part
from baker.catalog.records import JournalEntry
from baker.host import now

FIRST = "0" * 64
Load = Callable[[Session, str, str], object | None]  # (session, kind, subject) -> the record as it is now


def canonical(value: object) -> bytes:
    """The one JSON text of a record: RFC 8785. Mappings and tuples become objects and arrays."""
    plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    return rfc8785.dumps(json.loads(json.dumps(plain, default=_plain)))


def digest_of(value: object) -> str:
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()


def append(session: Session, kind: str, subject: str, record: object) -> None:
    """Enter a record, in the transaction that registers it."""
    last = session.scalar(select(tables.Journal).order_by(tables.Journal.serial.desc()).limit(1))
    serial, previous = (last.serial + 1, last.hash) if last else (1, FIRST)
    entry = {"serial": serial, "kind": kind, "subject": subject, "digest": digest_of(record), "previous": previous, "at": now()}
    session.add(tables.Journal(**entry, hash=_hash(entry)))
    session.flush()


class Journal(Part):
    """The chain of one catalog."""

    def entries(self, subject: str | None = None) -> list[JournalEntry]:
        """All entries in order, or those of one record."""
        query = select(tables.Journal).order_by(tables.Journal.serial)
        if subject is not None:
            query = query.where(tables.Journal.subject == subject)
        with self.reading() as session:
            return [_record(row) for row in session.scalars(query)]

    def faults(self) -> Iterator[str]:
        """What is wrong with the chain itself: entries that were changed, moved or taken out."""
        serial, previous = 0, FIRST
        for entry in self.entries():
            if entry.serial != serial + 1:
                yield f"journal entry {serial + 1} is missing"
            if entry.previous != previous:
                yield f"journal entry {entry.serial} ({entry.kind} {entry.subject}) does not follow the one before it"
            if _hash(_fields(entry)) != entry.hash:
                yield f"journal entry {entry.serial} ({entry.kind} {entry.subject}) was changed"
            serial, previous = entry.serial, entry.hash


def _fields(entry: JournalEntry) -> dict[str, Any]:
    found = asdict(entry)
    del found["hash"]
    return found


def _hash(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(dict(fields))).hexdigest()


def _record(row: tables.Journal) -> JournalEntry:
    return JournalEntry(row.serial, row.kind, row.subject, row.digest, row.previous, row.hash, row.at)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"no canonical JSON for {type(value).__name__}")
