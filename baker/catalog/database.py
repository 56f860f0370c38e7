"""Write the catalog and migrate its schema, with SQLAlchemy and Alembic. The database is an SQLite file or that of an SQLAlchemy URL.

SQLite runs in WAL mode with synchronous=FULL (a commit is on disk when it returns) and real transactions: Python's sqlite3 is kept
from starting its own, readers begin with BEGIN and writers with BEGIN IMMEDIATE, so that no transaction fails half-way because
another one wrote (https://www.sqlite.org/lang_transaction.html).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, create_engine, event, exc, inspect, make_url, text
from sqlalchemy.orm import Session

from baker.catalog.repository import IntegrityError, Reader
from baker.catalog.sqlite import BUSY_SECONDS, HEAD, SqliteFile, cannot_use, check_known, explained, target
from baker.core.errors import BakeError, HostError

UNCHAINED = ("0001", "0002", "0003")  # schemas without a journal: their records are entered in it by the migration
MIGRATION_LOCK = 0x62616B65  # the PostgreSQL advisory lock of migrations: "bake"
MIGRATIONS = Path(__file__).parent / "migrations"


class Reads(Protocol):
    """A database that can be read."""

    def reading(self) -> AbstractContextManager[Reader]: ...
    def close(self) -> None: ...


class EngineReader(Reader):
    """One transaction of a database that is not an SQLite file."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def stream(self, sql: str, **values: Any) -> Iterator[Any]:
        rows = self._connection.execute(text(sql), values, execution_options={"yield_per": 1000})
        return (SimpleNamespace(**row._mapping) for row in rows)

    def json_item(self, column: str, parameter: str, key: str) -> tuple[str, str]:
        return f"{column} ->> :{parameter}", key


class EngineReads:
    """The database of an SQLAlchemy URL, opened and migrated when it is first read."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine: Engine | None = None

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        with translated(self._url):
            self._engine = self._engine or open_engine(self._url)
            with self._engine.connect() as connection:
                yield EngineReader(connection)

    def close(self) -> None:
        """Close the database. The next use opens it again."""
        if self._engine is not None:
            self._engine.dispose()
        self._engine = None


def reads(url: str, busy_seconds: float) -> Reads:
    """The database of an SQLAlchemy URL, to be read."""
    with translated(url):
        path = sqlite_path(url)
    return EngineReads(url) if path is None else SqliteFile(path, busy_seconds, migrate)


def open_engine(place: Path | str, *, busy_seconds: float = BUSY_SECONDS) -> Engine:
    """Open the database at `place` (a path, or an SQLAlchemy URL). It is created or migrated if necessary.

    `busy_seconds`: how long to wait for another writer. HostError when it cannot be opened, is damaged or has a newer schema.
    """
    with translated(place):
        path = sqlite_path(place)
        if path is None:
            engine = create_engine(str(place), pool_pre_ping=True, json_serializer=_to_json)
            _migrate_if_behind(engine, place)
            return engine
        SqliteFile(path, busy_seconds, migrate).prepare()
        return _sqlite_engine(place, path, busy_seconds)


def migrate(path: Path, busy_seconds: float) -> None:
    """Migrate an SQLite file to HEAD."""
    engine = _sqlite_engine(path, path, busy_seconds)
    with translated(path):
        _migrate_if_behind(engine, path)
    engine.dispose()


def _sqlite_engine(place: Path | str, path: Path, busy_seconds: float) -> Engine:
    is_url = isinstance(place, str) and "://" in place
    name, uri = target(path)
    url = make_url(str(place)) if is_url else make_url("sqlite://").set(database=name.partition("?")[0])
    if uri and not is_url:
        url = url.set(query={"mode": "ro", "immutable": "1", "uri": "true"})
    engine = create_engine(url, connect_args={"timeout": busy_seconds}, json_serializer=_to_json)
    _tune_sqlite(engine)
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


def _tune_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("bake_writes") else "BEGIN")


def for_writing(engine: Engine) -> Engine:
    """The same database for transactions that write."""
    return engine.execution_options(bake_writes=True)


@contextmanager
def writing(place: Path | str, engine: Callable[[], Engine]) -> Iterator[Session]:
    """Run the body in one transaction that writes: all of it takes effect, or nothing."""
    with translated(place), Session(for_writing(engine())) as session, session.begin():
        yield session


@contextmanager
def reading_session(place: Path | str, engine: Callable[[], Engine]) -> Iterator[Session]:
    """Open a transaction that reads, with the row objects that writing uses."""
    with translated(place), Session(engine()) as session:
        yield session


def _revision_of(connection: Connection, place: Path | str) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    check_known(found, _shown(place))
    return found


def _migrate_if_behind(engine: Engine, place: Path | str) -> None:
    """Migrate the schema to HEAD in one transaction. A second process waits, and then has nothing to do."""
    with for_writing(engine).begin() as connection:
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


def schema_sql() -> str:
    """The content of schema.sql: the result of all migrations of an empty SQLite file. New files are created from it."""
    engine = create_engine("sqlite://")
    _tune_sqlite(engine)
    with engine.begin() as connection:
        upgrade(connection)
    with engine.connect() as connection:
        dump = connection.connection.driver_connection.iterdump()  # type: ignore[union-attr]
        return "".join(f"{line}\n" for line in dump if line not in ("BEGIN TRANSACTION;", "COMMIT;"))


@contextmanager
def translated(place: Path | str) -> Iterator[None]:
    """Convert errors of the database to errors of bake."""
    try:
        yield
    except BakeError:
        raise
    except exc.IntegrityError as error:
        raise IntegrityError(str(error.orig)) from error  # the caller explains it
    except exc.NoSuchModuleError as error:
        raise HostError(f"no driver for the catalog {_shown(place)}: {error}", code="catalog.no-driver") from error
    except ModuleNotFoundError as error:
        raise HostError(
            f"the catalog {_shown(place)} needs the Python package {error.name}",
            hint=f"pip install {error.name}",
            code="catalog.no-driver",
        ) from error
    except exc.DBAPIError as error:
        raise explained(str(error.orig), _shown(place), sqlite_path(place)) from error
    except exc.ArgumentError as error:
        raise HostError(f"{_shown(place)} is not a database URL: {error}", code="catalog.bad-url") from error
    except OSError as error:
        raise cannot_use(_shown(place), error) from error


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
