"""The interface of source kinds: where the images that builds start from come from. One module per kind, with `peek` and `fetch`."""

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
    """What a source may use. `scratch` is on the store's file system and is removed when the build ends."""

    home: Home
    store: BlobStore
    catalog: Catalog
    base_dir: Path
    scratch: Path
    ledger: BuildLedger
    report: Reporter
    epoch: int = 0  # seconds since the epoch: the time to use in a source that is made now; 0 means the present time
    builder: Builder | None = None  # the builder whose machines boot from the source

    @classmethod
    def for_peek(cls, home: Home, store: BlobStore, catalog: Catalog, base_dir: Path, builder: Builder | None = None) -> Context:
        """A context for `peek` only. `peek` makes nothing, so this context has no scratch directory and no ledger on disk."""
        nowhere = Path("/nonexistent")
        return cls(home, store, catalog, base_dir, nowhere, BuildLedger(nowhere, ""), Reporter(Null()), builder=builder)


class Source(Protocol):
    """A kind of source."""

    def peek(self, spec: Any, context: Context) -> SourceImage | None:
        """The exact source if this host has it already, else None. Quick, and without the network."""

    def fetch(self, spec: Any, context: Context) -> SourceImage:
        """The exact source, made or downloaded now if necessary. SourceError when that fails."""
