"""A lock from the record of a build and its evidence."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from baker.artifacts.ansible_content import of_build
from baker.artifacts.codecs import read_lines, read_packages
from baker.catalog.records import BuildRecord
from baker.core import host_facts
from baker.core.errors import NotFoundError
from baker.lockfile.check import input_files, inputs_digest, package_line
from baker.lockfile.galaxy import locked
from baker.lockfile.model import SCHEMA, Lock, LockedDownload, LockedImage, LockedIndex, LockedRepository, LockedSource, LockedTool
from baker.store.base import BlobStore
from baker.template.model import Template

INDEXES = ("/InRelease", "/Release", "/repomd.xml", "/APKINDEX.tar.gz")  # of apt, apt, rpm, apk
PACKAGES = (".deb", ".rpm", ".apk")
HEAD = 16384  # bytes of an index that hold its date


class Versions(Protocol):
    """Says the versions of this host's tools."""

    def __call__(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class Built:
    """A template with the build that made its image."""

    template: Template
    build: BuildRecord


def make_lock(built: Iterable[Built], store: BlobStore, versions: Versions = host_facts.tool_versions) -> Lock:
    """The lock of all images of one template file. NotFoundError when a build's evidence is not in the store."""
    every = sorted(built, key=lambda each: each.template.name)
    first = every[0]
    return Lock(
        schema_=SCHEMA,
        epoch=first.build.reproduction.get("epoch", first.template.epoch.seconds),
        template=first.template.path.name,
        repository=LockedRepository(commit=first.build.git_commit, dirty=first.build.git_dirty),
        tools=_tools(first.build, versions()),
        images={each.template.name: _image(each, store) for each in every},
    )


def write_lock(path: Path, lock: Lock) -> bool:
    """Put the lock in its place, whole or not at all; whether that changed the file."""
    data = lock.text().encode()
    if path.exists() and path.read_bytes() == data:
        return False
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return True


def _image(built: Built, store: BlobStore) -> LockedImage:
    template, build = built.template, built.build
    found, brought = fetched(build, store), of_build(build, store)
    return LockedImage(
        version=template.version,
        inputs=inputs_digest(template),
        source=LockedSource(**{name: build.source[name] for name in ("kind", "title", "digest")}, pins=dict(build.source.get("pins", {}))),
        files=input_files(template),
        indexes=tuple(
            LockedIndex(url=url, digest=digest, date=_date(store, digest)) for url, digest in sorted(found.items()) if url.endswith(INDEXES)
        ),
        downloads=tuple(LockedDownload(url=url, digest=digest) for url, digest in sorted(found.items()) if url.endswith(PACKAGES)),
        roles=locked(brought, "role"),
        collections=locked(brought, "collection"),
        packages=installed(build, store),
    )


def installed(build: BuildRecord, store: BlobStore) -> tuple[str, ...]:
    """The packages of a build's image, one line each, sorted. NotFoundError when their list is not on this host."""
    digest = build.evidence.get("packages_after", "")
    if not digest or not store.has(digest):
        raise NotFoundError(
            f"the list of packages of build {build.id} is not on this host", hint="build the image here: bake lock --update TEMPLATE"
        )
    with store.open(digest) as blob:
        return tuple(sorted(map(package_line, read_packages(blob).packages)))


def fetched(build: BuildRecord, store: BlobStore) -> dict[str, str]:
    """URL -> digest of what was answered well; of several answers the last one."""
    digest = build.evidence.get("fetches", "")
    if not digest or not store.has(digest):
        return {}
    with store.open(digest) as blob:
        lines: list[dict[str, Any]] = [json.loads(line) for line in read_lines(blob)]
    return {each["url"]: each["digest"] for each in lines if each["method"] == "GET" and each["status"] == 200 and each["digest"]}


def _date(store: BlobStore, digest: str) -> str:
    """The `Date` field of an InRelease or Release file; "" where there is none."""
    if not store.has(digest):
        return ""
    with store.open(digest) as blob:
        lines = blob.read(HEAD).decode("utf-8", "replace").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("Date:")), "")


def _tools(build: BuildRecord, now: Mapping[str, str]) -> dict[str, LockedTool]:
    """The tools on record. A binary's digest is that of the one which is here now, if it still says the version of the build."""
    found = {}
    for name, version in sorted(build.tools.items()):
        argv = host_facts.VERSION_COMMANDS.get(name)
        path = shutil.which(argv[0]) if argv and now.get(name) == version else None
        found[name] = LockedTool(version=version, sha256=_sha256(Path(path)) if path else "")
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
