"""Publishing an image: find its disk and the published images that share much with it, and hand them to the target."""

from __future__ import annotations

from collections.abc import Iterator

from baker.catalog.catalog import Catalog
from baker.catalog.records import ImageRecord
from baker.core.errors import NotFoundError
from baker.core.events import Reporter
from baker.core.workspace import STORE_LEASE, new_id
from baker.publish.base import Baked, Published, PublishOptions, PublishRequest, PublishServices, PublishTarget
from baker.publish.registry import get
from baker.store.base import BlobStore

MOST_EARLIER = 4


def publish(
    services: PublishServices, image: ImageRecord, to: str, options: PublishOptions, target: PublishTarget | None = None
) -> tuple[Published, ...]:
    """Publish `image` to the kind of target `to` and record that. No garbage is collected meanwhile."""
    target = target or get(to)
    with services.leases.shared(STORE_LEASE):
        request = PublishRequest(
            baked=baked(services.catalog, services.store, image),
            options=options,
            earlier=tuple(_earlier(services.catalog, services.store, image, target.kind)),
            publications=services.catalog.published,
            ledger=services.ledger,
            leases=services.leases,
            state=services.home.state / "publications",
            report=Reporter(services.sink, new_id()),
            clock=services.clock,
        )
        return target.publish(request)


def baked(catalog: Catalog, store: BlobStore, image: ImageRecord) -> Baked:
    """An image with its disk. NotFoundError for an image without a disk in the store."""
    if not image.chain:
        raise NotFoundError(
            f"{image.name}@{image.version} was made by the builder {image.builder}: its disk is not on this host",
            hint="publish an image that a builder on this host made",
            code="image.no-local-disk",
        )
    disk = store.materialize(image.chain, image.virtual_size)
    return Baked(image, disk, str(catalog.build_of(image).host.get("machine") or "x86_64"))


def _earlier(catalog: Catalog, store: BlobStore, image: ImageRecord, kind: str) -> Iterator[Baked]:
    """Published images whose disks are here: the ancestors of `image`, then the images of its name, newest first."""
    found = 0
    seen = {image.id}
    for other in (*catalog.history(image)[1:], *catalog.images(image.name)):
        if other.id in seen or found >= MOST_EARLIER:
            continue
        seen.add(other.id)
        whole = bool(other.chain) and all(store.has(blob) for blob in other.chain)
        if whole and catalog.publications(other.id, kind=kind):
            found += 1
            yield baked(catalog, store, other)
