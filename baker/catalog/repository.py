"""The base of the parts of the catalog, and the SQL conditions that they read with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

Condition = tuple[str, dict[str, Any]]  # SQL that follows WHERE, and the values of its parameters
AT_ONCE = 500  # values in one query: databases limit their number
T = TypeVar("T")

PRESENT: Condition = ("removed IS NULL", {})


class IntegrityError(Exception):
    """A write violated a constraint of the database: an ID is taken, or a record that is referred to does not exist."""


class Reader(ABC):
    """One transaction that reads. Its SQL is the common subset of SQLite and PostgreSQL; `:name` is a parameter.

    Rows have their columns as attributes. JSON columns have the decoded value, Boolean columns True or False.
    """

    @abstractmethod
    def stream(self, sql: str, **values: Any) -> Iterator[Any]:
        """Iterate over the rows. They are read on demand."""

    @abstractmethod
    def json_item(self, column: str, parameter: str, key: str) -> tuple[str, str]:
        """SQL for the text of an item of a JSON column, and the value for its parameter."""

    def rows(self, sql: str, **values: Any) -> list[Any]:
        return list(self.stream(sql, **values))

    def row(self, sql: str, **values: Any) -> Any:
        """The first row, or None."""
        return next(self.stream(sql, **values), None)

    def select(self, table: str, condition: Condition, order: str = "serial") -> list[Any]:
        """The rows of a table that meet a condition."""
        where, values = condition
        return self.rows(f"SELECT * FROM {table} WHERE {where} ORDER BY {order}", **values)

    def rows_for(self, sql: str, column: str, values: Collection[str]) -> Iterator[Any]:
        """The rows for which a column has one of these values (`{where}` in the query), in queries for some hundred values each."""
        for some in batches(sorted(set(values))):
            where, parameters = one_of(column, some)
            yield from self.stream(sql.format(where=where), **parameters)


ReadTransaction = Callable[[], AbstractContextManager[Reader]]
WriteTransaction = Callable[[], "AbstractContextManager[Session]"]


class Repository:
    """A part of the catalog. `reading` and `writing` open one transaction each, and raise bake's errors for errors of the database."""

    def __init__(self, reading: ReadTransaction, writing: WriteTransaction) -> None:
        self.reading = reading
        self.writing = writing


def equal(**values: object) -> Condition:
    """The condition that columns have these values. Values that are None are ignored."""
    given = {name: value for name, value in values.items() if value is not None}
    return " AND ".join(f"{name} = :{name}" for name in given) or "1 = 1", given


def one_of(column: str, values: Sequence[str]) -> Condition:
    """The condition that a column has one of these values, AT_ONCE at most."""
    named = {f"{column}_{number}": value for number, value in enumerate(values)}
    if not named:
        return "1 = 0", named
    return f"{column} IN ({', '.join(f':{name}' for name in named)})", named


def both(one: Condition, other: Condition) -> Condition:
    """The condition that two conditions hold."""
    return f"({one[0]}) AND ({other[0]})", {**one[1], **other[1]}


def batches(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), AT_ONCE):
        yield values[start : start + AT_ONCE]
