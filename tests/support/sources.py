"""The context of a source for tests: a home, a store, an open ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from baker.catalog.catalog import Catalog
from baker.core.errors import NotFoundError
from baker.core.events import Memory, Reporter
from baker.core.home import Home, ensure
from baker.core.ledger import Ledger
from baker.sources.base import Context
from baker.store.directory import DirectoryStore


class EmptyCatalog:
    """A catalog without images."""

    def resolve(self, text: str) -> Any:
        raise NotFoundError(f"no image {text!r}")


@contextmanager
def context_in(root: Path, *, catalog: Any = None, sink: Memory | None = None) -> Iterator[Context]:
    """A build's context with its home in `root`; templates are in `root` itself."""
    home = Home.from_environment({"BAKE_HOME": str(root / "home"), "HOME": str(root)})
    with Ledger(home.ledger).open("0123456789ab") as ledger:
        yield Context(
            home=home,
            store=DirectoryStore(home.blobs),
            catalog=catalog or cast(Catalog, EmptyCatalog()),
            base_dir=root,
            scratch=ensure(home.work("0123456789ab")),
            ledger=ledger,
            report=Reporter(sink or Memory()),
        )
