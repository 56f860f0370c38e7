"""A hash chain over everything that the catalog registers: a record that was changed, added or taken away behind bake's back is found.

Every transaction that registers something appends an entry: the SHA-256 of the record as canonical JSON (RFC 8785), and a hash over the
entry's own fields with the hash of the entry before it. So nobody can change a record without changing every entry after it; that the
whole chain was made anew is seen by signed statements, which hold the hash of the entry that was the last one when they were signed.

A record's newest entry says what it is now. `subject` is what kind of record and which: "image:1f2e3d4c5b6a".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from baker.catalog import tables
from baker.catalog.records import JournalEntry
from baker.catalog.repository import Repository, equal
from baker.core.host_facts import now

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

FIRST = "0" * 64
ADOPTED = "adopted"  # the kind of entries of records that are older than the journal
IMPORTED = "imported"  # and of records that came from another catalog, in an archive
LONGEST_SUBJECT = 255
SAFE = 2**53 - 1  # RFC 8785 knows no larger integers
COLUMNS = ("serial", "kind", "subject", "digest", "previous", "hash", "at")


def canonical(value: object) -> bytes:
    """The one JSON text of a value: RFC 8785. Of a record, fields with their default value are left out: a field that a later bake
    adds does not change the text of what is there."""
    import rfc8785

    return rfc8785.dumps(_clean(json.loads(json.dumps(value, default=_plain))))


def digest_of(value: object) -> str:
    """ "sha256:..." of the canonical JSON; of None for a record that is rightly gone."""
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()


def subject_of(kind: str, *names: object) -> str:
    """ "image:1f2e3d4c5b6a"; what would be too long for the column ends in its digest."""
    subject = f"{kind}:{'/'.join(map(str, names))}"
    return subject if len(subject) <= LONGEST_SUBJECT else f"{kind}:{hashlib.sha256(subject.encode()).hexdigest()}"


def append(session: Session, kind: str, subject: str, record: object) -> None:
    """Enter a record, in the transaction that registers it. `kind` is what happened; a record that is gone is None."""
    from sqlalchemy import text

    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("LOCK TABLE journal IN EXCLUSIVE MODE"))  # SQLite has one writer anyway
    last = session.scalar(tables.Journal.where().order_by(tables.Journal.serial.desc()).limit(1))
    serial, previous = (last.serial + 1, last.hash) if last else (1, FIRST)
    entry = {"serial": serial, "kind": kind, "subject": subject, "digest": digest_of(record), "previous": previous, "at": now()}
    session.add(tables.Journal(**entry, hash=_hash(entry)))
    session.flush()


class CatalogJournal(Repository):
    """The chain of one catalog."""

    def entries(self, subject: str | None = None) -> Iterator[JournalEntry]:
        """All entries in order, or those of one record; in constant memory."""
        where, values = equal(subject=subject)
        with self.reading() as reader:
            for row in reader.stream(f"SELECT * FROM journal WHERE {where} ORDER BY serial", **values):
                yield _entry(row)

    def head(self) -> JournalEntry | None:
        """The last entry; None of an empty catalog."""
        with self.reading() as reader:
            row = reader.row("SELECT * FROM journal ORDER BY serial DESC LIMIT 1")
        return _entry(row) if row else None

    def hash_at(self, serial: int) -> str | None:
        """The hash of one entry; None where there is none."""
        with self.reading() as reader:
            row = reader.row("SELECT hash FROM journal WHERE serial = :serial", serial=serial)
        return row.hash if row else None


def entry_faults(entry: JournalEntry, serial: int, previous: str) -> Iterator[str]:
    """What is wrong with an entry that comes after the entry `serial` with the hash `previous`."""
    shown = f"journal entry {entry.serial} ({entry.kind} of {entry.subject})"
    if entry.serial != serial + 1:
        missing = f"entry {serial + 1} is" if entry.serial == serial + 2 else f"entries {serial + 1} to {entry.serial - 1} are"
        yield f"journal {missing} missing"
    elif entry.previous != previous:
        yield f"{shown} does not follow the one before it: one of the two was changed"
    found = asdict(entry)
    del found["hash"]
    if _hash(found) != entry.hash:
        yield f"{shown} was changed"


def _entry(row: Any) -> JournalEntry:
    return JournalEntry(*(getattr(row, name) for name in COLUMNS))


def _hash(entry: Mapping[str, Any]) -> str:
    """SHA-256 of the entry as RFC 8785 has it: of words and one small number, that is what json writes, ten times as fast."""
    text = json.dumps(dict(entry), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _plain(value: object) -> object:
    """As the database's JSON columns have it (database.py)."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: found for each in fields(value) if not _is_default(each, found := getattr(value, each.name))}
    if isinstance(value, Mapping):
        return dict(value)
    return sorted(value) if isinstance(value, set | frozenset) else str(value)


def _is_default(each: Field[Any], value: object) -> bool:
    if each.default_factory is not MISSING:
        return bool(value == each.default_factory())
    return each.default is not MISSING and value == each.default and type(value) is type(each.default)


def _clean(value: Any) -> Any:
    """What RFC 8785 has no text for, as one that says the same."""
    if isinstance(value, dict):
        return {_clean(name): _clean(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_clean(each) for each in value]
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > SAFE:
        return str(value)
    return str(value) if isinstance(value, float) and value - value != 0 else value
