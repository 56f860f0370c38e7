"""Make a lock from the record of a build and its evidence, and write it."""

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
HEAD = 16384  # number of bytes at the beginning of an index that contain its date


class Versions(Protocol):
    """Returns the versions of the tools of this host."""

    def __call__(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class Built:
    """A template, and the build of its image."""

    template: Template
    build: BuildRecord


def make_lock(built: Iterable[Built], store: BlobStore, versions: Versions = host_facts.tool_versions) -> Lock:
    """The lock of all images of one template file. NotFoundError if the evidence of a build is not in the store."""
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
    """Write the lock file atomically. Returns whether its content changed."""
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
    downloads, content = fetched(build, store), of_build(build, store)
    return LockedImage(
        version=template.version,
        inputs=inputs_digest(template),
        source=LockedSource(**{name: build.source[name] for name in ("kind", "title", "digest")}, pins=dict(build.source.get("pins", {}))),
        files=input_files(template),
        indexes=tuple(
            LockedIndex(url=url, digest=digest, date=_date(store, digest))
            for url, digest in sorted(downloads.items())
            if url.endswith(INDEXES)
        ),
        downloads=tuple(LockedDownload(url=url, digest=digest) for url, digest in sorted(downloads.items()) if url.endswith(PACKAGES)),
        roles=locked(content, "role"),
        collections=locked(content, "collection"),
        packages=installed(build, store),
    )


def installed(build: BuildRecord, store: BlobStore) -> tuple[str, ...]:
    """The packages of the image of a build, one line each, sorted. NotFoundError if their list is not on this host."""
    digest = build.evidence.get("packages_after", "")
    if not digest or not store.has(digest):
        raise NotFoundError(
            f"the list of packages of build {build.id} is not on this host",
            hint="build the image here: bake lock --update TEMPLATE",
            code="record.evidence-not-on-host",
        )
    with store.open(digest) as blob:
        return tuple(sorted(map(package_line, read_packages(blob).packages)))


def fetched(build: BuildRecord, store: BlobStore) -> dict[str, str]:
    """The digest of each successful download by URL; of several, the last one."""
    digest = build.evidence.get("fetches", "")
    if not digest or not store.has(digest):
        return {}
    with store.open(digest) as blob:
        lines: list[dict[str, Any]] = [json.loads(line) for line in read_lines(blob)]
    return {each["url"]: each["digest"] for each in lines if each["method"] == "GET" and each["status"] == 200 and each["digest"]}


def _date(store: BlobStore, digest: str) -> str:
    """The `Date` field of an InRelease or Release file; "" if there is none."""
    if not store.has(digest):
        return ""
    with store.open(digest) as blob:
        lines = blob.read(HEAD).decode("utf-8", "replace").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("Date:")), "")


def _tools(build: BuildRecord, now: Mapping[str, str]) -> dict[str, LockedTool]:
    """The tools on record. The digest of a binary is that of the present one, if it still has the version of the build."""
    tools = {}
    for name, version in sorted(build.tools.items()):
        argv = host_facts.VERSION_COMMANDS.get(name)
        path = shutil.which(argv[0]) if argv and now.get(name) == version else None
        tools[name] = LockedTool(version=version, sha256=_sha256(Path(path)) if path else "")
    return tools


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
