"""Opening the catalog's database: SQLite in a file by default, any other by SQLAlchemy URL; migrated when it is behind.

SQLite runs in WAL mode with synchronous=FULL (a commit is on disk when it returns) and real transactions: Python's sqlite3 is kept
from starting its own, readers begin with BEGIN and writers with BEGIN IMMEDIATE, so that no transaction fails half-way because
another one wrote (https://www.sqlite.org/lang_transaction.html).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, inspect, make_url, text

from baker.core.disk_space import full, mount_point, read_only
from baker.core.errors import BakeError, BusyError, HostError
from baker.core.home import ensure
from baker.core.locks import locked

REVISIONS = ("0001", "0002", "0003", "0004")  # every schema this bake knows, oldest first; a test compares them with migrations/versions
HEAD = REVISIONS[-1]
UNCHAINED = ("0001", "0002", "0003")  # schemas without a journal: their records are entered when it comes
BUSY_SECONDS = 20.0
MIGRATION_LOCK = 0x62616B65  # the PostgreSQL advisory lock of migrations: "bake"
MIGRATIONS = Path(__file__).parent / "migrations"


def open_engine(place: Path | str, *, busy_seconds: float = BUSY_SECONDS) -> Engine:
    """The database at `place` (a path, or an SQLAlchemy URL), made and migrated as needed.

    `busy_seconds`: how long to wait for another writer. HostError when it cannot be opened, is damaged or has a newer schema.
    """
    with translated(place):
        path = sqlite_path(place)
        if path is None:
            engine = create_engine(str(place), pool_pre_ping=True, json_serializer=_to_json)
            _migrate_if_behind(engine, place)
            return engine
        ensure(path.parent)
        url = make_url(place) if isinstance(place, str) and "://" in place else _sqlite_url(path)
        engine = create_engine(url, connect_args={"timeout": busy_seconds}, json_serializer=_to_json)
        _tune_sqlite(engine)
        if _revision(engine, place) != HEAD:
            with locked(path.with_name(path.name + ".lock")):
                _use_wal(engine)
                _migrate_if_behind(engine, place)
        return engine


def sqlite_path(place: Path | str) -> Path | None:
    """The file of an SQLite catalog; None for another database."""
    if isinstance(place, Path):
        return place.absolute()
    if "://" not in place:
        return Path(place).absolute()
    url = make_url(place)
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    return Path(url.database.removeprefix("file:")).absolute()


def _sqlite_url(path: Path) -> URL:
    """Of a directory where nothing can be written, SQLite reads a WAL database only when told that it stands still: its -shm file
    cannot be made (https://www.sqlite.org/wal.html, "Read-Only Databases"). A -wal file that is there may hold commits: never skipped.
    """
    if os.access(path.parent, os.W_OK) or path.with_name(path.name + "-wal").exists():
        return URL.create("sqlite", database=str(path))
    return URL.create("sqlite", database="file:" + quote(str(path)), query={"mode": "ro", "immutable": "1", "uri": "true"})


def _tune_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("bake_writes") else "BEGIN")


def writing(engine: Engine) -> Engine:
    """The same database for transactions that write."""
    return engine.execution_options(bake_writes=True)


def _use_wal(engine: Engine) -> None:
    """A property of the file: set once, under the lock, because the switch does not wait for others."""
    raw = engine.raw_connection()
    try:
        raw.cursor().execute("PRAGMA journal_mode=WAL")
    finally:
        raw.close()


def _revision(engine: Engine, place: Path | str) -> str | None:
    """The schema that the database has; None for an empty one. HostError when this bake does not know it."""
    with engine.connect() as connection:
        return _revision_of(connection, place)


def _revision_of(connection: Connection, place: Path | str) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if found is not None and found not in REVISIONS:
        raise HostError(
            f"the catalog {_shown(place)} has schema {found}; this bake knows schemas up to {HEAD}",
            hint="a newer bake wrote it: use that one, or another BAKE_HOME",
        )
    return found


def _migrate_if_behind(engine: Engine, place: Path | str) -> None:
    """Bring the schema up to HEAD in one transaction. Whoever comes second waits and then finds nothing to do."""
    with writing(engine).begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
        if (revision := _revision_of(connection, place)) != HEAD:
            upgrade(connection)
            if revision in UNCHAINED:
                from baker.catalog.chain import adopt

                adopt(connection)


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run the migrations up to `revision` in the transaction of `connection`."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


@contextmanager
def translated(place: Path | str) -> Iterator[None]:
    """Turn what the database says into bake's errors."""
    try:
        yield
    except (BakeError, exc.IntegrityError):
        raise  # an integrity error is the caller's to explain
    except exc.NoSuchModuleError as error:
        raise HostError(f"no driver for the catalog {_shown(place)}: {error}") from error
    except ModuleNotFoundError as error:
        raise HostError(f"the catalog {_shown(place)} needs the Python package {error.name}", hint=f"pip install {error.name}") from error
    except exc.DBAPIError as error:
        raise _database_error(str(error.orig), place) from error
    except exc.ArgumentError as error:
        raise HostError(f"{_shown(place)} is not a database URL: {error}") from error
    except OSError as error:
        raise HostError(f"cannot use the catalog {_shown(place)}: {error.strerror}") from error


def _database_error(said: str, place: Path | str) -> BakeError:
    shown, path = _shown(place), sqlite_path(place)
    if "locked" in said:
        return BusyError(f"another process has been writing to the catalog {shown} for too long", hint="try again when it is done")
    if "readonly" in said or "unable to open" in said:
        where = f"; its file system{' (read-only)' if read_only(path) else ''} is mounted at {mount_point(path)}" if path else ""
        return HostError(f"cannot write the catalog {shown}: {said}{where}", hint="set BAKE_HOME to a directory that you may write to")
    if "disk is full" in said and path:
        return full(path)
    if "not a database" in said or "malformed" in said:
        return HostError(
            f"{shown} is damaged or not a catalog of bake: {said}", hint="restore it from a backup, or move it away to start empty"
        )
    return HostError(f"the catalog {shown} does not work: {said}")


def _shown(place: Path | str) -> str:
    """`place` without a password."""
    return make_url(place).render_as_string(hide_password=True) if isinstance(place, str) and "://" in place else str(place)


def _to_json(value: Any) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)
