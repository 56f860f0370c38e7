"""What the store may lose: blobs that nothing refers to, and layers that stand on what is gone."""

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
    """The store with everything that refers to its blobs."""

    home: Home
    catalog: Catalog
    store: BlobStore
    layers: LayerStore
    leases: Leases

    def collect_orphans(self, *, without: Collection[str] = (), dry_run: bool = False) -> list[Orphan]:
        """Remove the blobs that nothing refers to but sources that a next build would use again, and what layers stand on.

        What was removed, or with `dry_run` would be; `without` are layers to be taken as gone. Nothing while a build is alive.
        """

        def keep() -> set[str]:
            standing = {blob for layer in self.layers.all() if layer.id not in without for blob in layer.record.blobs}
            return kept_blobs(self.home.cache) | standing

        found = collect_orphans(self.catalog, self.store, self.leases, keep=keep, dry_run=dry_run)
        return [orphan for orphan in found or () if orphan.digest]

    def drop_layers(self) -> None:
        """Remove the layers that stand on what is not an image or a kept source any more."""
        missing = self.layers.blobs() - self.catalog.referenced_digests() - kept_blobs(self.home.cache)
        if missing:
            drop_based_on(self.layers, missing)
