"""Publishing a baked image: what it is, what it may share with images that are published already, and the target that does it."""

from __future__ import annotations

from collections.abc import Iterator

from baker.build.services import Services
from baker.catalog.catalog import Catalog
from baker.catalog.records import ImageRecord
from baker.core.errors import NotFoundError
from baker.core.events import Reporter
from baker.core.locks import shared
from baker.core.model import Disk
from baker.core.workspace import STORE_LOCK, new_id
from baker.publish.base import Baked, Published, PublishOptions, PublishRequest, PublishTarget
from baker.publish.registry import get
from baker.store.directory import DirectoryStore

MOST_EARLIER = 4


def publish(
    services: Services, image: ImageRecord, to: str, wishes: PublishOptions, target: PublishTarget | None = None
) -> tuple[Published, ...]:
    """Publish `image` to the kind of target `to` and put it on record. Its blobs stay in the store meanwhile."""
    target = target or get(to)
    with shared(services.home.state, STORE_LOCK):
        order = PublishRequest(
            baked=baked(services.catalog, services.store, image),
            options=wishes,
            earlier=tuple(_earlier(services.catalog, services.store, image, target.kind)),
            publications=services.catalog.published,
            ledger=services.ledger,
            state=services.home.state / "publications",
            report=Reporter(services.sink, new_id()),
            clock=services.clock,
        )
        return target.publish(order)


def baked(catalog: Catalog, store: DirectoryStore, image: ImageRecord) -> Baked:
    """An image with its disk. NotFoundError when that is not on this host."""
    if not image.chain:
        raise NotFoundError(f"{image.name}@{image.version} was made by the {image.builder} builder: there is no disk of it on this host")
    disk = Disk(store.path(image.chain[0]), "qcow2", image.virtual_size)
    return Baked(image, disk, str(catalog.build_of(image).host.get("machine") or "x86_64"))


def _earlier(catalog: Catalog, store: DirectoryStore, image: ImageRecord, kind: str) -> Iterator[Baked]:
    """Published images whose disks are here: those that it was made on, then those of its name, last made first."""
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
