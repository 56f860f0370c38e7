"""What was proved of images, and what was taken back: attestations, rebuilds, revocations with those that were undone. Reading only."""

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
    """A revocation of an image itself, and when it was undone, if it was."""

    revocation: Revocation
    undone: str | None = None
    undone_by: str = ""


class Proofs(Repository):
    """The proofs of one catalog."""

    def attestations(self, image_id: str) -> list[Attestation]:
        """The signed statements about an image, first made first."""
        with self.reading() as reader:
            rows = reader.select("attestations", equal(image=image_id))
        return [Attestation(**{name: getattr(row, name) for name in ATTESTATION_COLUMNS}) for row in rows]

    def rebuilds(self, image_id: str) -> list[Rebuild]:
        """How often an image was made again and how near that came, first first."""
        with self.reading() as reader:
            rows = reader.select("rebuilds", equal(image=image_id))
        return [Rebuild(**{name: getattr(row, name) for name in REBUILD_COLUMNS}) for row in rows]

    def revocations(self, image_ids: Sequence[str]) -> list[PastRevocation]:
        """What was ever done to these very images, first first; what was undone too."""
        with self.reading() as reader:
            rows = sorted(reader.rows_for("SELECT * FROM revocations WHERE {where}", "image", image_ids), key=lambda row: row.serial)
        return [
            PastRevocation(Revocation(**{name: getattr(row, name) for name in REVOCATION_COLUMNS}), row.undone, row.undone_by)
            for row in rows
        ]

    def channel_events(self, image_id: str) -> list[ChannelEvent]:
        """When channels came to point to an image, and when they left it, first first."""
        with self.reading() as reader:
            rows = reader.select("channel_events", ("after = :image OR before = :image", {"image": image_id}))
        return [ChannelEvent(**{name: getattr(row, name) for name in EVENT_COLUMNS}) for row in rows]
