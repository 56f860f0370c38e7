"""Fetches."""

from __future__ import annotations

import json
from collections.abc import Iterator

from baker.artifacts.codecs import read_lines
from baker.catalog.records import BuildRecord
from baker.core.model import Fetched
from baker.store.base import BlobStore


def fetched(build: BuildRecord, store: BlobStore) -> Iterator[Fetched]:
    """What the build's machines fetched, as far as it is on record."""
    if "fetches" in build.evidence:
        with store.open(build.evidence["fetches"]) as file:
            for line in read_lines(file):
                value = json.loads(line)
                yield Fetched(method=value["method"], url=value["url"], status=value["status"], digest=value.get("digest", ""))
