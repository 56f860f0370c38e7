"""Enters records in a catalog's journal without the methods of the catalog."""

from __future__ import annotations

from baker.catalog import chain, database
from baker.catalog.catalog import Catalog


def enter_all(catalog: Catalog, kind: str) -> int:
    """Enter every record that has no entry. Returns the number of those records."""
    with database.writing(catalog.place, lambda: database.open_engine(catalog.place)) as session:
        return chain.enter_all(session, kind)
