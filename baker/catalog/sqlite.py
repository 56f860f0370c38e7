"""Read the catalog's SQLite file with the sqlite3 module of Python. For writing see database.py.

Reading must not wait for SQLAlchemy, whose import alone takes ten times as long as Python's start. The file is in WAL mode. A reader
begins with BEGIN, so that all its queries see the same state.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

from baker.catalog.repository import Reader
from baker.core.disk_space import full, mount_point, read_only
from baker.core.errors import BakeError, BusyError, HostError
from baker.core.home import ensure
from baker.core.locks import locked

REVISIONS = ("0001", "0002", "0003", "0004")  # every schema this bake knows, oldest first; a test compares them with migrations/versions
HEAD = REVISIONS[-1]
BUSY_SECONDS = 20.0
SCHEMA = Path(__file__).with_name("schema.sql")  # the result of the migrations of an empty file; a test compares them
CONVERTERS: dict[str, Callable[[bytes], Any]] = {"JSON": json.loads, "BOOLEAN": lambda value: value != b"0"}  # by declared type
Migrate = Callable[[Path, float], None]  # (file, seconds to wait for a process that writes): migrate the file

for _name, _convert in CONVERTERS.items():
    sqlite3.register_converter(_name, _convert)  # takes effect only for connections with detect_types, such as ours


class SqliteReader(Reader):
    """One transaction of a connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def stream(self, sql: str, **values: Any) -> Iterator[Any]:
        cursor = self._connection.execute(sql, values)
        names = [column[0] for column in cursor.description]
        return (SimpleNamespace(**dict(zip(names, row, strict=True))) for row in cursor)

    def json_item(self, column: str, parameter: str, key: str) -> tuple[str, str]:
        return f"json_extract({column}, :{parameter})", f'$."{key}"'


class SqliteFile:
    """The file at `path`, created or migrated when it is first read. `busy_seconds`: how long to wait for a process that writes."""

    def __init__(self, path: Path, busy_seconds: float, migrate: Migrate) -> None:
        self._path, self._busy_seconds, self._migrate = path, busy_seconds, migrate
        self._idle: list[sqlite3.Connection] = []  # each is used by one thread at a time
        self._is_current = False

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """Open a transaction that reads. The file is created or migrated first if necessary."""
        self.prepare()
        with translated(self._path):
            connection = self._taken()
            try:
                connection.execute("BEGIN")
                yield SqliteReader(connection)
            finally:
                connection.rollback()
                self._idle.append(connection)

    def prepare(self) -> None:
        """Create or migrate the file if necessary. HostError when its schema is newer than this bake."""
        if self._is_current:
            return
        with translated(self._path):
            ensure(self._path.parent)
            if not self._path.exists() or self._revision() != HEAD:
                with locked(self._path.with_name(self._path.name + ".lock")):
                    self._make_or_migrate()
        self._is_current = True

    def close(self) -> None:
        """Close the file. The next use opens it again."""
        while self._idle:
            self._idle.pop().close()
        self._is_current = False

    def _taken(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            return connect(self._path, self._busy_seconds)

    def _revision(self) -> str | None:
        """The revision of the file's schema; None for an empty file."""
        with closing(connect(self._path, self._busy_seconds)) as connection:
            found = _revision_of(connection)
        check_known(found, self._path)
        return found

    def _make_or_migrate(self) -> None:
        with closing(connect(self._path, self._busy_seconds)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")  # set once, under the lock: the switch does not wait
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
                connection.executescript(f"BEGIN IMMEDIATE;\n{SCHEMA.read_text()}\nCOMMIT;")
            behind = _revision_of(connection) != HEAD
        if behind:
            self._migrate(self._path, self._busy_seconds)


def connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """Open a connection that begins no transaction by itself."""
    database, uri = target(path)
    return sqlite3.connect(
        database,
        timeout=busy_seconds,
        isolation_level=None,
        detect_types=sqlite3.PARSE_DECLTYPES,
        check_same_thread=False,
        uri=uri,
    )


def target(path: Path) -> tuple[str, bool]:
    """The name with which to open a file, and whether it is a URI.

    In a read-only directory, SQLite opens a WAL database only as immutable, because it cannot create its -shm file
    (https://www.sqlite.org/wal.html, "Read-Only Databases"). An existing -wal file may hold commits, so it is never skipped.
    """
    if os.access(path.parent, os.W_OK) or path.with_name(path.name + "-wal").exists():
        return str(path), False
    return f"file:{quote(str(path))}?mode=ro&immutable=1", True


def check_known(revision: str | None, place: Path | str) -> None:
    """Raise HostError when this bake does not know a schema."""
    if revision is not None and revision not in REVISIONS:
        raise HostError(
            f"the catalog {place} has schema {revision}; this bake knows schemas up to {HEAD}",
            hint="use the newer bake that wrote it, or another BAKE_HOME",
            code="catalog.newer-schema",
        )


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Convert errors of SQLite to errors of bake."""
    try:
        yield
    except sqlite3.Error as error:
        raise explained(str(error), str(path), path) from error
    except OSError as error:
        raise cannot_use(str(path), error) from error


def cannot_use(shown: str, error: OSError) -> HostError:
    return HostError(f"cannot use the catalog {shown}: {error.strerror}", code="catalog.unusable")


def explained(said: str, shown: str, path: Path | None) -> BakeError:
    """Convert the message of a database error to an error of bake. `path`: the file, for SQLite."""
    if "locked" in said:
        return BusyError(
            f"another process has been writing to the catalog {shown} for too long", hint="try again when it is done", code="catalog.locked"
        )
    if "readonly" in said or "unable to open" in said:
        where = f"; its file system{' (read-only)' if read_only(path) else ''} is mounted at {mount_point(path)}" if path else ""
        return HostError(
            f"cannot write the catalog {shown}: {said}{where}",
            hint="set BAKE_HOME to a directory that you may write to",
            code="catalog.read-only",
        )
    if "disk is full" in said and path:
        return full(path)
    if "not a database" in said or "malformed" in said:
        return HostError(
            f"{shown} is damaged or not a catalog of bake: {said}",
            hint="restore it from a backup, or move it away to start empty",
            code="catalog.damaged",
        )
    return HostError(f"the catalog {shown} does not work: {said}", code="catalog.unusable")


def _revision_of(connection: sqlite3.Connection) -> str | None:
    if connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'").fetchone() is None:
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else None
