"""What takes how much of this host's disk, and because of what."""

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
    """One thing that takes room. `size` in bytes on the disk, each byte counted once; `by`: what needs it; `last`: when it was last
    used (ISO 8601, UTC), "" when nobody notes that."""

    kind: Kind
    name: str
    size: int
    by: tuple[str, ...] = ()
    last: str = ""


def usage(home: Home, catalog: Catalog, store: BlobStore, layers: LayerStore) -> list[Used]:
    """Everything below the data and cache directories, largest kinds of things first by their order here."""
    counted: set[str] = set()
    found = [*_images(catalog, store, counted), *_sources(home, store, layers, counted), *_layers(layers)]
    for directory, name in (("downloads", "disk images on their way in"), ("http", "what guests fetched over HTTP")):
        size = allocated(home.cache / directory)
        found += [Used("downloads", name, size)] if size else []
    return [*found, *_rest(catalog, store, counted)]


def _images(catalog: Catalog, store: BlobStore, counted: set[str]) -> Iterator[Used]:
    """Each image's own delta; what it is on belongs to its parent, or to itself where there is none."""
    images = catalog.images()
    for image in images:
        own = [blob for blob in image.chain if blob not in counted and (blob == image.chain[0] or image.parent is None)]
        counted.update(own)
        children = tuple(f"{child.name}@{child.version}" for child in images if child.parent == image.id)
        yield Used("image", f"{image.name}@{image.version}", sum(_size(store, blob) for blob in own), children)


def _sources(home: Home, store: BlobStore, layers: LayerStore, counted: set[str]) -> Iterator[Used]:
    """Disks that no image is, but that a next build would start from, and what layers stand on."""
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
        yield Used("evidence", "logs, manifests, reports of builds", evidence)
    if leftover:
        yield Used("leftover", "nothing refers to it: `bake gc` removes it", leftover)


def _size(store: BlobStore, blob: str) -> int:
    try:
        return store.allocated(blob)
    except (OSError, NotFoundError):  # removed meanwhile, or damaged: `bake doctor` tells
        return 0
