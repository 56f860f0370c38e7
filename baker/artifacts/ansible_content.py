"""Ansible roles and collections that ansible-galaxy fetched on the host for a step: the evidence `brought`, JSON lines.

{"kind": "role", "name": "nginx", "version": "1.2.0", "digest": "sha256:...", "source": "https://...", "ref": "main", "commit": "40 hex"}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from baker.artifacts.codecs import pack_lines, read_lines
from baker.catalog.records import BuildRecord
from baker.core.errors import NotFoundError
from baker.core.model import AnsibleContent
from baker.store.base import BlobStore

EVIDENCE = "brought"


def write(path: Path, found: Iterable[AnsibleContent]) -> None:
    """Write a file of JSON lines."""
    path.write_text("".join(line + "\n" for line in _lines(found)))


def read(path: Path) -> tuple[AnsibleContent, ...]:
    """What `write` wrote; nothing where there is no such file."""
    try:
        return _parse(path.read_text().splitlines())
    except FileNotFoundError:
        return ()


def merge(*groups: Iterable[AnsibleContent]) -> tuple[AnsibleContent, ...]:
    """All of them, each once, sorted."""
    return tuple(sorted({each for group in groups for each in group}, key=lambda each: (each.kind, each.name, each.version, each.digest)))


def pack(found: Iterable[AnsibleContent]) -> bytes:
    """The content as a blob of evidence."""
    return pack_lines(_lines(found))


def of_build(build: BuildRecord, store: BlobStore) -> tuple[AnsibleContent, ...]:
    """The content on record for a build. NotFoundError when the evidence is not on this host."""
    digest = build.evidence.get(EVIDENCE, "")
    if not digest:
        return ()
    if not store.has(digest):
        raise NotFoundError(
            f"the list of Ansible content of build {build.id} is not on this host",
            hint="build the image on this host, or import it with its evidence",
            code="record.evidence-not-on-host",
        )
    with store.open(digest) as blob:
        return _parse(read_lines(blob))


def _parse(lines: Iterable[str]) -> tuple[AnsibleContent, ...]:
    return merge(AnsibleContent(**json.loads(line)) for line in lines)


def _lines(found: Iterable[AnsibleContent]) -> Iterator[str]:
    return (json.dumps(asdict(each), sort_keys=True) for each in found)
