"""Disk usage: the items on this host's disk, their sizes, and what needs them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from baker.catalog.catalog import Catalog
from baker.core.errors import NotFoundError
from baker.core.home import Home
from baker.layers.store import LayerStore, allocated
from baker.sources.cache_index import kept_blobs
from baker.store.base import BlobStore

Kind = Literal["image", "source", "layer", "downloads", "evidence", "leftover"]


@dataclass(frozen=True)
class Used:
    """An item. `size`: bytes on the disk, each counted once; `by`: what needs it; `last`: time of its last use (ISO 8601, UTC), "" if it
    is not recorded."""

    kind: Kind
    name: str
    size: int
    by: tuple[str, ...] = ()
    last: str = ""


def usage(home: Home, catalog: Catalog, store: BlobStore, layers: LayerStore) -> list[Used]:
    """Everything below the data and cache directories: images, sources, layers, downloads, evidence, leftovers."""
    counted: set[str] = set()
    found = [*_images(catalog, store, counted), *_sources(home, store, layers, counted), *_layers(layers)]
    for directory, name in (("downloads", "disk images, partly downloaded"), ("http", "HTTP downloads of guests")):
        size = allocated(home.cache / directory)
        found += [Used("downloads", name, size)] if size else []
    return [*found, *_rest(catalog, store, counted)]


def _images(catalog: Catalog, store: BlobStore, counted: set[str]) -> Iterator[Used]:
    """Images with the size of their own delta. The rest of a chain counts for the parent; without a parent, for the image."""
    images = catalog.images()
    for image in images:
        own = [blob for blob in image.chain if blob not in counted and (blob == image.chain[0] or image.parent is None)]
        counted.update(own)
        children = tuple(f"{child.name}@{child.version}" for child in images if child.parent == image.id)
        yield Used("image", f"{image.name}@{image.version}", sum(_size(store, blob) for blob in own), children)


def _sources(home: Home, store: BlobStore, layers: LayerStore, counted: set[str]) -> Iterator[Used]:
    """Disks of no image, which the next build would start from or layers are built on."""
    for blob in sorted((kept_blobs(home.cache) | layers.blobs()) - counted):
        if store.has(blob):
            counted.add(blob)
            by = tuple(sorted({f"layer of {layer.record.template}" for layer in layers.all() if blob in layer.record.blobs}))
            yield Used("source", blob[:19], _size(store, blob), by)


def _layers(layers: LayerStore) -> Iterator[Used]:
    known = layers.all()
    for layer in known:
        above = tuple(f"{other.record.template}@{other.record.step}" for other in known if other.record.parent == layer.id)
        yield Used(
            "layer",
            f"{layer.record.template}@{layer.record.step} {layer.record.name}",
            layer.size,
            above,
            datetime.fromtimestamp(layer.used, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )


def _rest(catalog: Catalog, store: BlobStore, counted: set[str]) -> Iterator[Used]:
    wanted = catalog.referenced_digests()
    rest = [blob for blob in store.digests() if blob not in counted]
    evidence = sum(_size(store, blob) for blob in rest if blob in wanted)
    leftover = sum(_size(store, blob) for blob in rest if blob not in wanted)
    if evidence:
        yield Used("evidence", "logs, manifests and reports of builds", evidence)
    if leftover:
        yield Used("leftover", "not referenced: `bake gc` removes it", leftover)


def _size(store: BlobStore, blob: str) -> int:
    try:
        return store.allocated(blob)
    except (OSError, NotFoundError):  # removed meanwhile
        return 0
