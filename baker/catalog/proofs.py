"""Read the history of an image: attestations, rebuilds, channel events, and revocations, including those that were undone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from baker.catalog.channels import EVENT_COLUMNS
from baker.catalog.records import Attestation, ChannelEvent, Rebuild, Revocation
from baker.catalog.repository import Repository, equal
from baker.catalog.revocations import COLUMNS as REVOCATION_COLUMNS

ATTESTATION_COLUMNS = ("image", "predicate", "digest", "keyid", "who", "at")
REBUILD_COLUMNS = ("image", "level", "disk", "report", "host", "who", "at")


@dataclass(frozen=True)
class PastRevocation:
    """A revocation of an image itself, and when and by whom it was undone, if it was."""

    revocation: Revocation
    undone: str | None = None
    undone_by: str = ""


class Proofs(Repository):
    """The history of the images in one catalog."""

    def attestations(self, image_id: str) -> list[Attestation]:
        """The attestations of an image, oldest first."""
        with self.reading() as reader:
            rows = reader.select("attestations", equal(image=image_id))
        return [Attestation(**{name: getattr(row, name) for name in ATTESTATION_COLUMNS}) for row in rows]

    def rebuilds(self, image_id: str) -> list[Rebuild]:
        """Rebuilds of an image, oldest first, with the level reached."""
        with self.reading() as reader:
            rows = reader.select("rebuilds", equal(image=image_id))
        return [Rebuild(**{name: getattr(row, name) for name in REBUILD_COLUMNS}) for row in rows]

    def revocations(self, image_ids: Sequence[str]) -> list[PastRevocation]:
        """The revocations of the images themselves, oldest first, including those that were undone."""
        with self.reading() as reader:
            rows = sorted(reader.rows_for("SELECT * FROM revocations WHERE {where}", "image", image_ids), key=lambda row: row.serial)
        return [
            PastRevocation(Revocation(**{name: getattr(row, name) for name in REVOCATION_COLUMNS}), row.undone, row.undone_by)
            for row in rows
        ]

    def channel_events(self, image_id: str) -> list[ChannelEvent]:
        """The changes that pointed a channel to an image or away from it, oldest first."""
        with self.reading() as reader:
            rows = reader.select("channel_events", ("after = :image OR before = :image", {"image": image_id}))
        return [ChannelEvent(**{name: getattr(row, name) for name in EVENT_COLUMNS}) for row in rows]
