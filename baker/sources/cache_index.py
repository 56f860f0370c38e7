"""An index of sources that this host has imported: one small JSON file per key. A lost entry costs time and nothing else."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baker.core.home import ensure

KINDS = ("bootstraps", "files", "urls")  # the directories of the sources' indexes, below the cache
KEY = re.compile(r"[0-9a-f]{16,64}")


@dataclass(frozen=True)
class Index:
    """The entries in one directory below the cache."""

    directory: Path

    def read(self, key: str) -> Mapping[str, Any] | None:
        """The entry of `key` (16 to 64 hex digits), or None when there is no readable one. ValueError when `key` is not a key."""
        path = self._path(key)
        try:
            value = json.loads(path.read_text())
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def write(self, key: str, value: Mapping[str, Any]) -> None:
        """Replace the entry of `key` atomically: readers see either the old or the new entry."""
        ensure(self.directory)
        handle, temporary = tempfile.mkstemp(dir=self.directory, prefix=".new-")
        try:
            with os.fdopen(handle, "w") as file:
                json.dump(value, file, indent=1, sort_keys=True)
            Path(temporary).rename(self._path(key))
        finally:
            Path(temporary).unlink(missing_ok=True)

    def remove(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        if not KEY.fullmatch(key):
            raise ValueError(f"not a key: {key!r}")
        return self.directory / f"{key}.json"


def kept_blobs(cache: Path) -> set[str]:
    """The digests of the blobs that the indexes below `cache` refer to. They were costly to make, and the next build uses them again."""
    entries = (Index(cache / kind).read(path.stem) for kind in KINDS for path in (cache / kind).glob("*.json") if KEY.fullmatch(path.stem))
    return {str(entry["blob"]) for entry in entries if entry and "blob" in entry}
