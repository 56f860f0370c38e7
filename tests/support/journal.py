"""Entering records in a catalog's journal behind the catalog's back."""

from __future__ import annotations

from sqlalchemy.orm import Session

from baker.catalog import chain, database
from baker.catalog.catalog import Catalog


def enter_all(catalog: Catalog, kind: str) -> int:
    """Enter every record that has no entry; the number of those records."""
    with Session(database.writing(database.open_engine(catalog.place))) as session, session.begin():
        return chain.enter_all(session, kind)
