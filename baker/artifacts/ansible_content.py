"""What host programs fetched for a step, besides the guest's own downloads: roles and collections. Evidence `brought`: JSON lines.

{"kind": "role", "name": "nginx", "version": "1.2.0", "digest": "sha256:...", "source": "https://...", "ref": "main", "commit": "40 hex"}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from baker.artifacts.codecs import pack_lines, read_lines
from baker.catalog.records import BuildRecord
from baker.core.errors import NotFoundError
from baker.core.model import AnsibleContent
from baker.store.base import BlobStore

NAME = "brought.jsonl"  # in a layer's directory, and in a build's scratch directory
EVIDENCE = "brought"


def note(scratch: Path, found: Iterable[AnsibleContent]) -> None:
    """Add to what the build's steps, and those of the layer that it goes on from, brought so far."""
    with (scratch / NAME).open("a") as file:
        file.writelines(json.dumps(asdict(each), sort_keys=True) + "\n" for each in found)


def read(scratch: Path) -> tuple[AnsibleContent, ...]:
    """What `note` wrote, each once, sorted; nothing where there is no such file."""
    try:
        return _parse((scratch / NAME).read_text().splitlines())
    except FileNotFoundError:
        return ()


def pack(found: Sequence[AnsibleContent]) -> bytes:
    """As evidence."""
    return pack_lines(json.dumps(asdict(each), sort_keys=True) for each in found)


def of_build(build: BuildRecord, store: BlobStore) -> tuple[AnsibleContent, ...]:
    """What a build's record has. NotFoundError when its evidence is not on this host."""
    digest = build.evidence.get(EVIDENCE, "")
    if not digest:
        return ()
    if not store.has(digest):
        raise NotFoundError(f"what build {build.id} brought is not on this host", hint="build the image here")
    with store.open(digest) as blob:
        return _parse(read_lines(blob))


def _parse(lines: Iterable[str]) -> tuple[AnsibleContent, ...]:
    found = {AnsibleContent(**json.loads(line)) for line in lines}
    return tuple(sorted(found, key=lambda each: (each.kind, each.name, each.version, each.digest)))
