"""The seam to where bytes are kept, by content.

A digest is "sha256:" and 64 hex digits. A disk is a qcow2 blob, either complete or a delta on another one, its parent. A chain is the
digests of a delta, its parent and so on, down to a disk that is complete. A delta names its parent by a path relative to itself
(`backing_path`). That path is part of the bytes that are hashed, so it is the same in every store.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from baker.core.model import Disk

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class BlobStore(Protocol):
    """Content-addressed bytes. Adding is atomic: a blob is complete or absent, it is durable before the call returns, and adding the
    same bytes twice keeps one blob. Every method raises HostError when the store cannot be used."""

    # --- reading -------------------------------------------------------------------------------------------------

    def has(self, digest: str) -> bool: ...

    def open(self, digest: str) -> BinaryIO:
        """NotFoundError when absent."""

    def path(self, digest: str) -> Path:
        """A local file with the blob's bytes, read-only. NotFoundError when absent."""

    def materialize(self, chain: Sequence[str], virtual_size: int | None = None) -> Disk:
        """The disk `chain[0]` as local files that QEMU can use as a backing file: all blobs of the chain, where they name each other.

        Without `virtual_size` (bytes) it is read from the disk. NotFoundError when a blob of the chain is absent.
        """

    def size(self, digest: str) -> int:
        """The number of the blob's bytes. NotFoundError when absent."""

    def allocated(self, digest: str) -> int:
        """Bytes that the blob takes on the disks of this host, holes left out. NotFoundError when absent."""

    def digests(self) -> Iterator[str]:
        """The digest of every blob."""

    def verify(self, digest: str) -> bool:
        """Whether the bytes still have this digest. NotFoundError when absent."""

    # --- writing -------------------------------------------------------------------------------------------------

    def add_file(self, path: Path) -> str:
        """Take the file at `path` into the store and return its digest; the file is no longer at `path`."""

    def add_bytes(self, data: bytes) -> str:
        """Keep `data` and return its digest."""

    def add_disk(self, disk: Disk, parent: str | None) -> str:
        """Take `disk` into the store and return its digest; its file is no longer where it was.

        With `parent`, the digest of a disk in the store, `disk` is a qcow2 on a backing file with the parent's content, and the reference
        to that file is rewritten to the parent's blob. Without, it is complete; another format than qcow2 is converted. UsageError when
        the disk is complete though a parent is given, or is not complete though none is. NotFoundError when the parent is absent.
        """

    def delete(self, digest: str) -> None:
        """Remove a blob, if it is there. The caller knows that nothing needs it."""

    def clean(self) -> int:
        """Remove what dead writers left behind; the number of files removed. Safe while other processes add blobs."""


def backing_path(parent: str) -> str:
    """How a delta names its parent: the file of the parent's digest, relative to the delta's own."""
    name = parent.removeprefix("sha256:")
    return f"../{name[:2]}/{name}"
