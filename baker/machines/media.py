"""What a machine boots from to run a recorded image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baker.artifacts.disk import stored
from baker.core.model import Media
from baker.machines.base import Builder, Publisher
from baker.store.base import BlobStore

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog
    from baker.catalog.records import ImageRecord


def media_of(image: ImageRecord, builder: Builder | None, catalog: Catalog, store: BlobStore) -> Media:
    """The image as machines of `builder` boot it (None: machines of this host). NotFoundError when it is not where they run."""
    if isinstance(builder, Publisher):
        return builder.media(catalog.publications(image.id))
    return stored(image, store)
