"""The seam to where bytes are kept, by content. Real ones: a directory, S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol


class BlobStore(Protocol):
    """Content-addressed bytes. A digest is "sha256:" and 64 hex digits. Adding is atomic: a blob is whole or absent, on disk before
    the call returns, and adding the same bytes twice keeps one."""

    def add_file(self, path: Path) -> str:
        """Take the file at `path` into the store (moved when that can be) and return its digest."""

    def add_bytes(self, data: bytes) -> str:
        """Keep `data` and return its digest."""

    def has(self, digest: str) -> bool: ...

    def open(self, digest: str) -> BinaryIO:
        """NotFoundError when absent."""

    def path(self, digest: str) -> Path:
        """A local file with the blob's bytes, read-only. NotFoundError when absent."""

    def size(self, digest: str) -> int: ...

    def delete(self, digest: str) -> None:
        """Remove a blob; nothing happens when it is absent. Whether it is still needed is the caller's question."""

    def digests(self) -> Iterator[str]: ...

    def verify(self, digest: str) -> bool:
        """Whether the bytes still are what their name says."""
