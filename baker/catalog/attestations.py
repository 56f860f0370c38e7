"""Attestations, signed statements about images: the digests of their envelopes in the store, and who signed them."""

from __future__ import annotations

from typing import Any

from baker.catalog import tables
from baker.catalog.journal import append, subject_of
from baker.catalog.records import Attestation
from baker.catalog.repository import Repository, equal

COLUMNS = ("image", "predicate", "digest", "keyid", "who", "at")


class Attestations(Repository):
    """The attestations of one catalog. They are never changed or removed."""

    def add(self, attestation: Attestation) -> None:
        """Put an attestation on record. Its envelope must be in the store already. Adding the same one again changes nothing."""
        with self.writing() as session:
            if session.scalar(tables.Attestation.where(image=attestation.image, digest=attestation.digest).limit(1)) is not None:
                return
            row = tables.Attestation(**{name: getattr(attestation, name) for name in COLUMNS})
            session.add(row)
            session.flush()
            append(session, "attestation", subject_of("attestation", row.serial), attestation)

    def of(self, image_id: str, predicate: str | None = None) -> list[Attestation]:
        """The attestations of an image, or those with one predicate type, oldest first."""
        with self.reading() as reader:
            return [attestation_record(row) for row in reader.select("attestations", equal(image=image_id, predicate=predicate))]


def attestation_record(row: Any) -> Attestation:
    return Attestation(**{name: getattr(row, name) for name in COLUMNS})
