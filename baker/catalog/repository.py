"""A part of the catalog: some tables of its database, with the transactions that the catalog opens."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from sqlalchemy.orm import Session

Transaction = Callable[[], AbstractContextManager[Session]]


class Repository:
    """`reading` and `writing` open one transaction each; errors of the database come out as bake's."""

    def __init__(self, reading: Transaction, writing: Transaction) -> None:
        self.reading = reading
        self.writing = writing
