"""What a machine boots from to run an image of the catalog: its disk in the store, or where its builder has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baker.builders.base import Builder, Publisher
from baker.errors import NotFoundError
from baker.model import Disk, Media
from baker.store.base import BlobStore

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog
    from baker.catalog.records import ImageRecord


def media_of(image: ImageRecord, builder: Builder | None, catalog: Catalog, store: BlobStore) -> Media:
    """The image for machines of `builder` (None: of this host). NotFoundError when it is not where those are."""
    if isinstance(builder, Publisher):
        return builder.media(catalog.publications(image.id))
    return stored(image, store)


def stored(image: ImageRecord, store: BlobStore) -> Disk:
    """The image's disk in the store. NotFoundError for one that was not baked on this host."""
    if not image.chain:
        raise NotFoundError(
            f"{image.name}@{image.version} ({image.id}) was baked by {image.builder}: there is no disk of it on this host",
            hint=f"only builder: {{kind: {image.builder}, ...}} starts from it",
        )
    return Disk(store.path(image.chain[0]), "qcow2", image.virtual_size)
