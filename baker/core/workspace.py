"""The workspace of a build on this host: its id, its scratch directory, and the variable that marks its processes."""

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

# The name of a lease. A process that adds blobs, or reads blobs that could be removed, holds it shared until the record that needs them is
# written. Garbage collection holds it exclusively.
STORE_LEASE = "in-use"


def new_id() -> str:
    """A new id of a build or an image: 12 hex digits."""
    return secrets.token_hex(6)


@contextmanager
def scratch_directory(home: Home, build_id: str, ledger: BuildLedger) -> Iterator[Path]:
    """Create the build's private directory, in its ledger, and remove it at the end unless the build's resources are kept."""
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
    """A scratch directory for work other than a build. It is in the ledger, and garbage collection waits until it is removed."""
    own_id = new_id()
    with leases.shared(STORE_LEASE), ledger.open(own_id) as own, scratch_directory(home, own_id, own) as work:
        yield work


@contextmanager
def process_mark(build_id: str) -> Iterator[None]:
    """Put the build's id into this process's environment, so that its children have it and `bake sweep` finds those of a killed build."""
    before = os.environ.get(process.BUILD_ID_VARIABLE)
    os.environ[process.BUILD_ID_VARIABLE] = build_id
    try:
        yield
    finally:
        if before is None:
            del os.environ[process.BUILD_ID_VARIABLE]
        else:
            os.environ[process.BUILD_ID_VARIABLE] = before
