"""Disks on their way into the store: compacted to a qcow2 that stands alone, identified by the digest of the raw disk."""

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


def take(disk: Disk, context: Context, scratch: Path) -> dict[str, Any]:
    """Keep `disk` (any format; its file stays) in the store. Returns the beginning of an index entry: "digest", "blob", "virtual_size"."""

    def advance(label: str, part: float) -> None:
        context.report.progress(label, int(part * disk.virtual_size), disk.virtual_size)

    compact = qemuimg.convert(disk, scratch / "compact.qcow2", "qcow2", advance=lambda part: advance("converting", part))
    digest = raw_digest(compact, scratch=scratch, advance=lambda part: advance("reading", part))
    blob = context.store.add_file(compact.path)
    return {"digest": digest, "blob": blob, "virtual_size": disk.virtual_size}


def disk_of(entry: Mapping[str, Any] | None, store: BlobStore) -> Disk | None:
    """The disk that an index entry tells of; None when it tells of none or its blob is gone."""
    if not entry or not isinstance(entry.get("blob"), str) or not isinstance(entry.get("virtual_size"), int):
        return None
    try:
        return store.materialize((entry["blob"],), entry["virtual_size"])
    except NotFoundError:
        return None


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """ALGORITHM:HEX of the bytes of a file. HostError when it cannot be read."""
    total = hashlib.new(algorithm)
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                total.update(chunk)
    except OSError as error:
        raise host_error(error, path) from error
    return f"{algorithm}:{total.hexdigest()}"
