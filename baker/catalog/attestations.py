"""Attestations, signed statements about images: the digests of their envelopes in the store, and who signed them."""

from __future__ import annotations

from sqlalchemy import select

from baker.catalog import tables
from baker.catalog.journal import append, subject_of
from baker.catalog.records import Attestation
from baker.catalog.repository import Repository

COLUMNS = ("image", "predicate", "digest", "keyid", "who", "at")


class Attestations(Repository):
    """The attestations of one catalog. They are never changed or removed."""

    def add(self, attestation: Attestation) -> None:
        """Put an attestation on record. Its envelope must be in the store already. Adding the same one again changes nothing."""
        with self.writing() as session:
            same = select(tables.Attestation.serial).where(
                tables.Attestation.image == attestation.image, tables.Attestation.digest == attestation.digest
            )
            if session.scalar(same.limit(1)) is not None:
                return
            row = tables.Attestation(**{name: getattr(attestation, name) for name in COLUMNS})
            session.add(row)
            session.flush()
            append(session, "attestation", subject_of("attestation", row.serial), attestation)

    def of(self, image_id: str, predicate: str | None = None) -> list[Attestation]:
        """The attestations of an image, or those with one predicate type, oldest first."""
        query = select(tables.Attestation).where(tables.Attestation.image == image_id).order_by(tables.Attestation.serial)
        if predicate is not None:
            query = query.where(tables.Attestation.predicate == predicate)
        with self.reading() as session:
            return [attestation_record(row) for row in session.scalars(query)]


def attestation_record(row: tables.Attestation) -> Attestation:
    return Attestation(**{name: getattr(row, name) for name in COLUMNS})
