"""Take an image away from where its builder has it: an image that EC2 baked is nothing but its AMIs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from baker import host
from baker.builders.base import Builder, Publisher
from baker.builders.spec import spec_of

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog
    from baker.catalog.records import ImageRecord
    from baker.template.model import AnyBuilder


def withdraw(image: ImageRecord, catalog: Catalog, make: Callable[[AnyBuilder, str | None], Builder]) -> None:
    """Deregister the AMIs of an image that EC2 baked, and delete their snapshots; each is marked as removed when it is gone. AMIs that were
    made of a disk of this host are left: they are copies."""
    if image.chain:
        return
    builder = make(spec_of(image.builder, catalog.build(image.build).shape), None)
    if not isinstance(builder, Publisher):
        return
    for publication in catalog.publications(image.id):
        builder.remove(publication)
        catalog.published.remove(publication, at=host.now())
