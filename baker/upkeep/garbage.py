"""Garbage collection of the store: blobs that nothing refers to, and layers whose source was removed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from baker.catalog.catalog import Catalog
from baker.core.home import Home
from baker.core.leases import Leases
from baker.layers.store import LayerStore
from baker.sources.cache_index import kept_blobs
from baker.store.base import BlobStore
from baker.upkeep.cache_budget import drop_based_on
from baker.upkeep.orphans import Orphan, collect_orphans


@dataclass(frozen=True)
class GarbageCollector:
    """The store, and everything that refers to its blobs."""

    home: Home
    catalog: Catalog
    store: BlobStore
    layers: LayerStore
    leases: Leases

    def collect_orphans(self, *, without: Collection[str] = (), dry_run: bool = False) -> list[Orphan]:
        """Remove the blobs that no image, evidence, layer or cached source refers to; nothing while a build is running.

        Returns the removed blobs; with `dry_run`, those that would be removed. `without`: ids of layers to treat as removed.
        """

        def keep() -> set[str]:
            below = {blob for layer in self.layers.all() if layer.id not in without for blob in layer.record.blobs}
            return kept_blobs(self.home.cache) | below

        found = collect_orphans(self.catalog, self.store, self.leases, keep=keep, dry_run=dry_run)
        return [orphan for orphan in found or () if orphan.digest]

    def drop_layers(self) -> None:
        """Remove the layers whose source is neither an image nor a cached source any more."""
        missing = self.layers.blobs() - self.catalog.referenced_digests() - kept_blobs(self.home.cache)
        if missing:
            drop_based_on(self.layers, missing)
