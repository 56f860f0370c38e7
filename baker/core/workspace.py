"""What a build has for itself on this host: an id, a scratch directory, and a mark on its processes."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from baker.core import process
from baker.core.home import Home, ensure
from baker.core.leases import Leases
from baker.core.ledger import BuildLedger, Ledger
from baker.core.user_namespace import remove_tree

# A lease: shared by whoever adds blobs or reads some that could be removed, until the record that needs them is written; held alone by
# garbage collection.
STORE_LEASE = "in-use"


def new_id() -> str:
    """A new id of a build or an image: 12 hex digits."""
    return secrets.token_hex(6)


@contextmanager
def scratch_directory(home: Home, build_id: str, ledger: BuildLedger) -> Iterator[Path]:
    """The build's private directory. It is in the ledger, and removed at the end unless the build's machine is kept."""
    path = home.work(build_id)
    entry = ledger.enter("directory", path=str(path))
    ensure(path)
    try:
        yield path
    finally:
        if not ledger.kept:
            remove_tree(path)
            ledger.strike(entry)


@contextmanager
def workplace(home: Home, leases: Leases, ledger: Ledger) -> Iterator[Path]:
    """A scratch directory for work that is no build. It is in the ledger, and no garbage is collected meanwhile."""
    own_id = new_id()
    with leases.shared(STORE_LEASE), ledger.open(own_id) as own, scratch_directory(home, own_id, own) as work:
        yield work


@contextmanager
def process_mark(build_id: str) -> Iterator[None]:
    """Mark every child of this process with the build's id, so that `bake sweep` finds what a killed build left running."""
    before = os.environ.get(process.BUILD_ID_VARIABLE)
    os.environ[process.BUILD_ID_VARIABLE] = build_id
    try:
        yield
    finally:
        if before is None:
            del os.environ[process.BUILD_ID_VARIABLE]
        else:
            os.environ[process.BUILD_ID_VARIABLE] = before
