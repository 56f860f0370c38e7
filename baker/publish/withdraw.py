"""Remove images together with what their builders hold: an image that EC2 baked consists only of its AMIs."""

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
    """Remove images, children before parents. Each is first removed from its builder, then from the catalog.

    Returns the removed images. Raises BusyError before anything is removed when one of them must not be.
    """
    left = {image.id: image for image in images}
    for image_id in left:
        catalog.check_removable(image_id, force=force, along=set(left))
    removed = []
    while left:
        image = next((i for i in left.values() if not any(c.id in left for c in catalog.children(i.id))), None)
        assert image is not None, "lineage has no cycles"
        withdraw(image, catalog, make)
        catalog.remove(image.id, force=force)
        removed.append(left.pop(image.id))
    return removed


def withdraw(image: ImageRecord, catalog: Catalog, make: Callable[[BuilderConfig, str | None], Builder]) -> None:
    """Deregister the AMIs of an image that EC2 baked, delete their snapshots, and mark each publication as removed.

    AMIs that were published from a disk on this host are copies of it and stay.
    """
    if image.chain:
        return
    builder = make(spec_of(image.builder, catalog.build(image.build).shape), None)
    if not isinstance(builder, Publisher):
        return
    for publication in catalog.publications(image.id):
        builder.remove(publication)
        catalog.published.remove(publication, at=host_facts.now())
