"""Garbage collection of blobs that nothing refers to, never while a build is running."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from baker.core.leases import Leases
from baker.core.workspace import STORE_LEASE
from baker.store.base import BlobStore

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog


@dataclass(frozen=True)
class Orphan:
    """A blob that nothing refers to, or a dead writer's temporary file (its `digest` is ""). `size` in bytes."""

    digest: str
    size: int


def collect_orphans(
    catalog: Catalog, store: BlobStore, leases: Leases, *, keep: Callable[[], Collection[str]] = frozenset, dry_run: bool = False
) -> list[Orphan] | None:
    """Remove the blobs that no image and no evidence of a build refers to, and that `keep` does not return. Returns them.

    A build adds its blobs before it registers them, so nothing is removed and None is returned while a build is running. The catalog
    and `keep` are read while the lease is held, so they include the references of builds that have just ended.
    """
    with leases.try_exclusive(STORE_LEASE) as alone:
        if not alone:
            return None
        wanted = catalog.referenced_digests() | set(keep())
        orphans = [Orphan(digest, store.size(digest)) for digest in store.digests() if digest not in wanted]
        if not dry_run:
            for orphan in orphans:
                store.delete(orphan.digest)
            orphans += [Orphan("", 0) for _ in range(store.clean())]
        return orphans
