"""Download a small file, such as an index of images, into memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

from baker.sources.download import Download


def fetch(url: str) -> bytes:
    """The content of the file at `url`. SourceError when the download fails."""
    with tempfile.TemporaryDirectory(prefix="bake-") as directory:
        part = Path(directory) / "file.part"
        Download(url, part, lambda done, total: None).run()
        return part.read_bytes()
