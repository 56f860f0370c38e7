"""The downloads of a build: the evidence `fetches`, JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator

from baker.artifacts.codecs import read_lines
from baker.catalog.records import BuildRecord
from baker.core.model import Fetched
from baker.store.base import BlobStore


def fetched(build: BuildRecord, store: BlobStore) -> Iterator[Fetched]:
    """Yield the recorded downloads of the build's machines, without their headers; none when the build recorded none."""
    if "fetches" in build.evidence:
        with store.open(build.evidence["fetches"]) as file:
            for line in read_lines(file):
                value = json.loads(line)
                yield Fetched(method=value["method"], url=value["url"], status=value["status"], digest=value.get("digest", ""))
