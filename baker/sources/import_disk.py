"""Import disks into the store: each becomes a compact qcow2 without a backing file, identified by the digest of the raw disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from baker.core.disk_space import host_error
from baker.core.errors import NotFoundError
from baker.core.model import Disk
from baker.disks import qemuimg
from baker.disks.raw import raw_digest
from baker.sources.base import Context
from baker.store.base import BlobStore

CHUNK = 1 << 20


def to_store(disk: Disk, context: Context, scratch: Path) -> dict[str, Any]:
    """Import `disk` (of any format) into the store; its own file stays. Returns an index entry: "digest", "blob", "virtual_size"."""

    def advance(label: str, part: float) -> None:
        context.report.progress(label, int(part * disk.virtual_size), disk.virtual_size)

    compact = qemuimg.convert(disk, scratch / "compact.qcow2", "qcow2", advance=lambda part: advance("converting", part))
    digest = raw_digest(compact, scratch=scratch, advance=lambda part: advance("reading", part))
    blob = context.store.add_file(compact.path)
    return {"digest": digest, "blob": blob, "virtual_size": disk.virtual_size}


def disk_of(entry: Mapping[str, Any] | None, store: BlobStore) -> Disk | None:
    """The disk that an index entry refers to, or None when the entry is incomplete or the store lacks its blob."""
    if not entry or not isinstance(entry.get("blob"), str) or not isinstance(entry.get("virtual_size"), int):
        return None
    try:
        return store.materialize((entry["blob"],), entry["virtual_size"])
    except NotFoundError:
        return None


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """The digest of a file's bytes as ALGORITHM:HEX. HostError when the file cannot be read."""
    total = hashlib.new(algorithm)
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                total.update(chunk)
    except OSError as error:
        raise host_error(error, path) from error
    return f"{algorithm}:{total.hexdigest()}"
