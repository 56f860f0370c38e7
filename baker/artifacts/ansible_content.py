"""Ansible roles and collections that ansible-galaxy fetched on the host for a step: the evidence `brought`, JSON lines.

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


def note(scratch: Path, content: Iterable[AnsibleContent]) -> None:
    """Append to the file that lists the content of earlier steps, those in the build's base layer included."""
    with (scratch / NAME).open("a") as file:
        file.writelines(json.dumps(asdict(each), sort_keys=True) + "\n" for each in content)


def read(scratch: Path) -> tuple[AnsibleContent, ...]:
    """Read the file that `note` writes: without duplicates, sorted; empty when there is no such file."""
    try:
        return _parse((scratch / NAME).read_text().splitlines())
    except FileNotFoundError:
        return ()


def pack(content: Sequence[AnsibleContent]) -> bytes:
    """Encode as an evidence blob."""
    return pack_lines(json.dumps(asdict(each), sort_keys=True) for each in content)


def of_build(build: BuildRecord, store: BlobStore) -> tuple[AnsibleContent, ...]:
    """The content that a build's record lists. NotFoundError when this evidence is not on this host."""
    digest = build.evidence.get(EVIDENCE, "")
    if not digest:
        return ()
    if not store.has(digest):
        raise NotFoundError(
            f"the list of Ansible content of build {build.id} is not on this host",
            hint="build the image on this host, or import it with its evidence",
            code="evidence.missing",
        )
    with store.open(digest) as blob:
        return _parse(read_lines(blob))


def _parse(lines: Iterable[str]) -> tuple[AnsibleContent, ...]:
    content = {AnsibleContent(**json.loads(line)) for line in lines}
    return tuple(sorted(content, key=lambda each: (each.kind, each.name, each.version, each.digest)))
