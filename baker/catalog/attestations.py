"""Signed statements about images: where their envelopes are in the store, and who signed."""

from __future__ import annotations

from typing import Any

from baker.catalog import tables
from baker.catalog.journal import append, subject_of
from baker.catalog.records import Attestation
from baker.catalog.repository import Repository, equal

COLUMNS = ("image", "predicate", "digest", "keyid", "who", "at")


class Attestations(Repository):
    """The attestations of one catalog. None is ever changed or taken away."""

    def add(self, attestation: Attestation) -> None:
        """Put an envelope on record. Its blob is in the store already. The same envelope again changes nothing."""
        with self.writing() as session:
            if session.scalar(tables.Attestation.where(image=attestation.image, digest=attestation.digest).limit(1)) is not None:
                return
            row = tables.Attestation(**{name: getattr(attestation, name) for name in COLUMNS})
            session.add(row)
            session.flush()
            append(session, "attestation", subject_of("attestation", row.serial), attestation)

    def of(self, image_id: str, predicate: str | None = None) -> list[Attestation]:
        """The attestations of an image (with this predicate type), first made first."""
        with self.reading() as reader:
            return [attestation_record(row) for row in reader.select("attestations", equal(image=image_id, predicate=predicate))]


def attestation_record(row: Any) -> Attestation:
    return Attestation(**{name: getattr(row, name) for name in COLUMNS})
