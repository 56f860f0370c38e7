"""What a machine boots from to run an image of the catalog: its disk in the store, or where its builder has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baker.core.errors import NotFoundError
from baker.core.model import Disk
from baker.store.base import BlobStore

if TYPE_CHECKING:
    from baker.catalog.records import ImageRecord


def stored(image: ImageRecord, store: BlobStore) -> Disk:
    """The image's disk in the store. NotFoundError for one that was not baked on this host."""
    if not image.chain:
        raise NotFoundError(
            f"{image.name}@{image.version} ({image.id}) was baked by {image.builder}: there is no disk of it on this host",
            hint=f"only builder: {{kind: {image.builder}, ...}} starts from it",
        )
    return store.materialize(image.chain, image.virtual_size)
