"""The roles and collections of a lock, and their newer versions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from semantic_version import Version

from baker.artifacts.ansible_content import of_build
from baker.catalog.records import BuildRecord
from baker.catalog.reference import parse_version
from baker.core.errors import BakeError, NotFoundError
from baker.core.model import AnsibleContent
from baker.lockfile.candidates import Fetch
from baker.lockfile.model import LockedContent
from baker.provision.galaxy import COMMIT, galaxy_server, remote_commit
from baker.store.base import BlobStore

COLLECTION = "/api/v3/plugin/ansible/content/published/collections/index/{}/"
ROLE = "/api/v1/roles/?owner__username={}&name={}"


def locked(contents: Iterable[AnsibleContent], kind: str) -> tuple[LockedContent, ...]:
    """The content of one kind in the form of a lock."""
    return tuple(
        LockedContent(name=each.name, version=each.version, digest=each.digest, source=each.source, ref=each.ref, commit=each.commit)
        for each in contents
        if each.kind == kind
    )


def describe(content: LockedContent) -> str:
    """Version or ref, commit and digest in short form, which distinguish content of the same name."""
    parts = [content.version or content.ref or "-", *([content.commit[:12]] if content.commit else []), content.digest[7:19]]
    return " ".join(dict.fromkeys(parts))


def newer(build: BuildRecord, store: BlobStore, fetch: Fetch, unknown: list[str]) -> Iterator[tuple[str, str, str, str, str]]:
    """(kind, name, recorded version or commit, present one, note). Content that cannot be checked is added to `unknown`."""
    try:
        every = of_build(build, store)
    except NotFoundError as error:
        unknown.append(f"its roles and collections: {error.message}")
        return
    for each in every:
        if each.commit:
            now = remote_commit(each.source, each.ref)
            if not now:
                unknown.append(f"{each.kind} {each.name}: {each.source} has no readable ref {each.ref}")
            elif now != each.commit and not COMMIT.fullmatch(each.ref):
                yield each.kind, each.name, each.commit, now, f"{each.ref} of {each.source}"
        elif not each.ref:
            try:
                now = _published(each, fetch)
            except BakeError as error:
                unknown.append(f"{each.kind} {each.name}: {error.message}")
                continue
            except (ValueError, KeyError, IndexError, TypeError):
                unknown.append(f"{each.kind} {each.name}: the answer of the server is not understood")
                continue
            if _is_newer(each.version, now):
                yield each.kind, each.name, each.version, now, ""


def _published(each: AnsibleContent, fetch: Fetch) -> str:
    """The newest version on the server that ansible-galaxy of this host uses."""
    server = galaxy_server()
    namespace, _, name = each.name.partition(".")
    if each.kind == "collection":
        return str(json.loads(fetch(server + COLLECTION.format(f"{namespace}/{name}")))["highest_version"]["version"])
    source = each.source or each.name
    owner, _, role = source.partition(".")
    versions = json.loads(fetch(server + ROLE.format(owner, role)))["results"][0]["summary_fields"]["versions"]
    return max((str(version["name"]) for version in versions), key=_order)


def _order(text: str) -> Version:
    return parse_version(text.lstrip("v")) or Version("0.0.0")


def _is_newer(before: str, now: str) -> bool:
    versions = parse_version(before.lstrip("v")), parse_version(now.lstrip("v"))
    return versions[0] < versions[1] if versions[0] and versions[1] else before != now
