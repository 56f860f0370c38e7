"""The protocol of blob stores, which store bytes by content.

A digest is "sha256:" and 64 hex digits. A disk is a qcow2 blob, either complete or a delta on another one, its parent. A chain is the
list of the digests of a delta, its parent and so on, down to a complete disk. A delta names its parent by a path relative to itself
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
        """Return the disk `chain[0]` as local files that QEMU can use as a backing file, with the paths by which they refer to each other.

        If `virtual_size` (bytes) is None, it is read from the disk. NotFoundError when a blob of the chain is absent.
        """

    def size(self, digest: str) -> int:
        """The number of the blob's bytes. NotFoundError when absent."""

    def allocated(self, digest: str) -> int:
        """Bytes that the blob takes on the disks of this host, without holes. NotFoundError when absent."""

    def digests(self) -> Iterator[str]:
        """The digest of every blob."""

    def verify(self, digest: str) -> bool:
        """Whether the bytes still have this digest. NotFoundError when absent."""

    # --- writing -------------------------------------------------------------------------------------------------

    def add_file(self, path: Path) -> str:
        """Move the file at `path` into the store and return its digest."""

    def add_bytes(self, data: bytes) -> str:
        """Store `data` and return its digest."""

    def add_disk(self, disk: Disk, parent: str | None) -> str:
        """Move `disk` into the store and return its digest.

        With `parent`, the digest of a disk in the store, `disk` is a qcow2 on a backing file with the parent's content, and the reference
        to that file is rewritten to the parent's blob. Without `parent`, the disk must be complete; a format other than qcow2 is
        converted. UsageError when the disk is complete but a parent is given, or the reverse. NotFoundError when the parent is absent.
        """

    def delete(self, digest: str) -> None:
        """Remove a blob, if it exists. The caller must know that nothing needs it."""

    def clean(self) -> int:
        """Remove files that dead writers left behind, and return their number. Safe while other processes add blobs."""


def backing_path(parent: str) -> str:
    """The path by which a delta refers to its parent: the parent's file, relative to the file of the delta."""
    name = parent.removeprefix("sha256:")
    return f"../{name[:2]}/{name}"
