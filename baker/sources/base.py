"""The seam to where source images come from: one module per kind, each with `peek` and `fetch`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from baker.core.events import Null, Reporter
from baker.core.home import Home
from baker.core.ledger import BuildLedger
from baker.core.model import SourceImage
from baker.store.base import BlobStore

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog
    from baker.machines.base import Builder


@dataclass(frozen=True)
class Context:
    """What a source may use. `scratch` is on the store's file system and dies with the build."""

    home: Home
    store: BlobStore
    catalog: Catalog
    base_dir: Path
    scratch: Path
    ledger: BuildLedger
    report: Reporter
    epoch: int = 0  # seconds: what a source that is made now says its time is; 0 for now
    builder: Builder | None = None  # whose machines are to boot from it

    @classmethod
    def for_peek(cls, home: Home, store: BlobStore, catalog: Catalog, base_dir: Path, builder: Builder | None = None) -> Context:
        """A context that is enough to peek: nothing is made, so there is no scratch directory and no ledger on disk."""
        nowhere = Path("/nonexistent")
        return cls(home, store, catalog, base_dir, nowhere, BuildLedger(nowhere, ""), Reporter(Null()), builder=builder)


class Source(Protocol):
    """A kind of source."""

    def peek(self, spec: Any, context: Context) -> SourceImage | None:
        """The exact source if this host has it already, quickly and without the network; else None."""

    def fetch(self, spec: Any, context: Context) -> SourceImage:
        """The exact source, made or downloaded now if need be. SourceError when it cannot be had."""
