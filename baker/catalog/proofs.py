"""Read the history of an image: attestations, rebuilds, channel events, and revocations, including those that were undone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import or_, select

from baker.catalog import tables
from baker.catalog.channels import EVENT_COLUMNS
from baker.catalog.records import Attestation, ChannelEvent, Rebuild, Revocation
from baker.catalog.repository import Repository
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
        query = select(tables.Attestation).where(tables.Attestation.image == image_id).order_by(tables.Attestation.serial)
        with self.reading() as session:
            return [Attestation(**{name: getattr(row, name) for name in ATTESTATION_COLUMNS}) for row in session.scalars(query)]

    def rebuilds(self, image_id: str) -> list[Rebuild]:
        """Rebuilds of an image, oldest first, with the level reached."""
        query = select(tables.Rebuild).where(tables.Rebuild.image == image_id).order_by(tables.Rebuild.serial)
        with self.reading() as session:
            return [Rebuild(**{name: getattr(row, name) for name in REBUILD_COLUMNS}) for row in session.scalars(query)]

    def revocations(self, image_ids: Sequence[str]) -> list[PastRevocation]:
        """The revocations of the images themselves, oldest first, including those that were undone."""
        query = select(tables.Revocation).where(tables.Revocation.image.in_(image_ids)).order_by(tables.Revocation.serial)
        with self.reading() as session:
            return [
                PastRevocation(Revocation(**{name: getattr(row, name) for name in REVOCATION_COLUMNS}), row.undone, row.undone_by)
                for row in session.scalars(query)
            ]

    def channel_events(self, image_id: str) -> list[ChannelEvent]:
        """The changes that pointed a channel to an image or away from it, oldest first."""
        event = tables.ChannelEvent
        query = select(event).where(or_(event.after == image_id, event.before == image_id)).order_by(event.serial)
        with self.reading() as session:
            return [ChannelEvent(**{name: getattr(row, name) for name in EVENT_COLUMNS}) for row in session.scalars(query)]
