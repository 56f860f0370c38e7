"""Rebuilds of images, with the level of reproducibility that each reached. These records are never changed or removed."""

from __future__ import annotations

from baker.catalog import tables
from baker.catalog.journal import append, subject_of
from baker.catalog.proofs import REBUILD_COLUMNS
from baker.catalog.records import Rebuild
from baker.catalog.repository import Repository


class Rebuilds(Repository):
    """The rebuilds of one catalog; `Proofs.rebuilds` lists them."""

    def add(self, rebuild: Rebuild) -> None:
        """Put a rebuild on record. The blob of its report must be in the store already."""
        with self.writing() as session:
            row = tables.Rebuild(**{name: getattr(rebuild, name) for name in REBUILD_COLUMNS})
            session.add(row)
            session.flush()
            append(session, "rebuild", subject_of("rebuild", row.serial), rebuild)
