"""A small file behind a URL, in memory: an index, not an image."""

from __future__ import annotations

import tempfile
from pathlib import Path

from baker.sources.download import Download


def fetch(url: str) -> bytes:
    """The file. SourceError when it cannot be had."""
    with tempfile.TemporaryDirectory(prefix="bake-") as directory:
        part = Path(directory) / "file.part"
        Download(url, part, lambda done, total: None).run()
        return part.read_bytes()
