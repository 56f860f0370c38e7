"""Take an image away from where its builder has it: an image that EC2 baked is nothing but its AMIs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from baker.core import host_facts
from baker.machines.base import Builder, Publisher
from baker.machines.spec import spec_of

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog
    from baker.catalog.records import ImageRecord
    from baker.template.builders import BuilderConfig


def remove(
    images: Iterable[ImageRecord], catalog: Catalog, make: Callable[[BuilderConfig, str | None], Builder], *, force: bool
) -> list[ImageRecord]:
    """Remove images, children before parents, each from where its builder has it first. BusyError before any is gone."""
    left = {image.id: image for image in images}
    for image_id in left:
        catalog.check_removable(image_id, force=force, along=set(left))
    removed = []
    while left:
        image = next((i for i in left.values() if not any(c.id in left for c in catalog.children(i.id))), None)
        assert image is not None, "lineage has no circles"
        withdraw(image, catalog, make)
        catalog.remove(image.id, force=force)
        removed.append(left.pop(image.id))
    return removed


def withdraw(image: ImageRecord, catalog: Catalog, make: Callable[[BuilderConfig, str | None], Builder]) -> None:
    """Deregister the AMIs of an image that EC2 baked, and delete their snapshots; each is marked as removed when it is gone. AMIs that were
    made of a disk of this host are left: they are copies."""
    if image.chain:
        return
    builder = make(spec_of(image.builder, catalog.build(image.build).shape), None)
    if not isinstance(builder, Publisher):
        return
    for publication in catalog.publications(image.id):
        builder.remove(publication)
        catalog.published.remove(publication, at=host_facts.now())
