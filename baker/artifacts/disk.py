"""The disk of a catalog image in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baker.core.errors import NotFoundError
from baker.core.model import Disk
from baker.store.base import BlobStore

if TYPE_CHECKING:
    from baker.catalog.records import ImageRecord


def stored(image: ImageRecord, store: BlobStore) -> Disk:
    """The image's disk in the store. NotFoundError for an image whose builder keeps no disk on this host."""
    if not image.chain:
        raise NotFoundError(
            f"the image {image.name}@{image.version} ({image.id}) was baked by {image.builder}: its disk is not on this host",
            hint=f"only builder: {{kind: {image.builder}, ...}} can start from it",
            code="image.no-local-disk",
        )
    return store.materialize(image.chain, image.virtual_size)
