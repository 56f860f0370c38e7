"""What of an image's story can be checked now: every blob against its name, the disk against the record, the line of its parents.

A check is a callable that looks at a `Subject` and says what it found; `bake audit` runs those of `CHECKS` and those it is handed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from baker.artifacts.disk import stored
from baker.catalog.records import BuildRecord, ImageRecord, Revocation
from baker.core.errors import BakeError
from baker.disks.raw import raw_digest
from baker.store.base import BlobStore

SHOWN = 5  # how many bad blobs a check names
BODY = "body:"  # names of evidence that are what guests fetched


@dataclass(frozen=True)
class Check:
    """What was looked at, and what was seen. "unknown": there is nothing here to look at, which is no fault."""

    name: str
    status: Literal["ok", "failed", "unknown"]
    detail: str


@dataclass(frozen=True)
class Subject:
    """An image with its builds: `line` is itself, then what it is made on, up to the root; a build is None where its record is gone."""

    line: Sequence[ImageRecord]
    builds: Sequence[BuildRecord | None]
    store: BlobStore
    revocation: Revocation | None
    at: str  # now
    proofs: Sequence[tuple[str, str]] = ()  # (what, blob digest) of attestations and of reports of rebuilds
    scratch: Path | None = None

    @property
    def image(self) -> ImageRecord:
        return self.line[0]

    @property
    def build(self) -> BuildRecord | None:
        return self.builds[0]


Checker = Callable[[Subject], Iterable[Check]]


def verdict(ok: bool, name: str, good: str, bad: str) -> Check:
    return Check(name, "ok" if ok else "failed", good if ok else bad)


def template(subject: Subject) -> Iterator[Check]:
    """The text of each template on record is the one that was built."""
    for image, build in zip(subject.line, subject.builds, strict=True):
        if build is None:
            yield Check("record of the build", "failed", f"the record of build {image.build}, which made {title(image)}, is gone")
            continue
        if image.origin == "committed" and not build.template_text and not build.template_digest:
            if image is subject.image:
                yield Check("template", "unknown", "it was committed from a shell, not built from a template")
            continue
        found = "sha256:" + hashlib.sha256(build.template_text.encode()).hexdigest()
        if image is subject.image or found != build.template_digest:
            good = f"the text on record has the digest {build.template_digest}"
            bad = f"the text on record of {title(image)} has the digest {found}, not {build.template_digest}"
            yield verdict(found == build.template_digest, "template", good, bad)


def lineage(subject: Subject) -> Iterator[Check]:
    """Each image's disk lies on its parent's, and its build started from just that."""
    wrong = []
    for image, build, parent in zip(subject.line, subject.builds, subject.line[1:], strict=False):
        if image.chain and image.chain[1:] != parent.chain:
            wrong.append(f"the disk of {title(image)} is not backed by that of {title(parent)}")
        started_from = build.source.get("digest") if build else None
        if started_from and started_from != parent.digest:
            wrong.append(f"{title(image)} was built from {started_from}, but {title(parent)} is {parent.digest}")
    if not wrong and subject.line[-1].parent:
        wrong.append(f"the record of image {subject.line[-1].parent} is gone")
    count = len(subject.line) - 1
    yield verdict(not wrong, "lineage", f"{count} ancestor{'' if count == 1 else 's'}, each as its child's build says", "; ".join(wrong))


def disk(subject: Subject) -> Iterator[Check]:
    """The blobs of the disk, and the raw disk that they make."""
    image = subject.image
    if not image.chain:
        yield Check("disk", "unknown", f"baked by {image.builder}: there is no disk of it on this host")
        return
    if image.removed:
        yield Check("disk", "unknown", f"removed at {image.removed}: its disk may be gone")
        return
    blobs = blobs_check("disk blobs", [(f"disk {number}", digest) for number, digest in enumerate(image.chain)], subject.store)
    yield blobs
    if blobs.status != "ok":
        return  # what lies on a bad blob is bad too, and may not even open
    try:
        found = raw_digest(stored(image, subject.store), scratch=subject.scratch)
    except BakeError as error:
        yield Check("disk", "failed", f"cannot be read: {error.message}")
        return
    yield verdict(found == image.digest, "disk", f"reads as {found}", f"reads as {found}, but the record says {image.digest}")


def kept(subject: Subject) -> Iterator[Check]:
    """The evidence of the image's build and of its ancestors' is there, byte by byte."""
    for image, build in zip(subject.line, subject.builds, strict=True):
        if build is None:
            continue
        of = "" if image is subject.image else f" of {title(image)}"
        named = [(name, digest) for name, digest in sorted(build.evidence.items()) if not name.startswith(BODY)]
        bodies = [(name, digest) for name, digest in sorted(build.evidence.items()) if name.startswith(BODY)]
        yield blobs_check(f"evidence{of}", named, subject.store)
        if bodies:
            yield blobs_check(f"what was fetched{of}", bodies, subject.store)


def proofs(subject: Subject) -> Iterator[Check]:
    """The blobs of attestations and of reports of rebuilds; whether signatures hold is for another checker."""
    if subject.proofs:
        yield blobs_check("attestations and rebuilds", subject.proofs, subject.store)


def tests(subject: Subject) -> Iterator[Check]:
    build = subject.build
    if build is None:
        return
    if build.verify == "passed":
        yield Check("tests", "ok", f"{sum(test.outcome == 'passed' for test in build.tests)} passed before it was registered")
    elif build.verify == "failed":
        yield Check("tests", "failed", "its tests failed")
    else:
        yield Check("tests", "unknown", f"it was never tested ({build.verify})")


def revocation(subject: Subject) -> Iterator[Check]:
    found = subject.revocation
    if found is None:
        yield Check("revocation", "ok", "neither it nor what it is made on is revoked")
        return
    through = f" through image {found.inherited_from}" if found.inherited_from else ""
    said = f"revoked{through} from {found.effective} on, by {found.who}: {found.reason}"
    yield Check("revocation", "failed" if found.effective <= subject.at else "ok", said)


CHECKS: tuple[Checker, ...] = (template, lineage, disk, kept, proofs, tests, revocation)


def run(subject: Subject, more: Sequence[Checker] = ()) -> tuple[Check, ...]:
    """Every check, one after the other. One that cannot be carried out has failed."""
    found: list[Check] = []
    for checker in (*CHECKS, *more):
        try:
            found += checker(subject)
        except BakeError as error:
            found.append(Check(checker.__name__, "failed", error.message))
    return tuple(found)


def blobs_check(name: str, blobs: Sequence[tuple[str, str]], store: BlobStore) -> Check:
    """Whether blobs, as (name, digest), are in the store and are what their digests say."""
    bad = []
    for each, digest in blobs:
        if not store.has(digest):
            bad.append(f"{each} ({digest}) is gone")
        elif not store.verify(digest):
            bad.append(f"{each} ({digest}) was changed")
    if not blobs:
        return Check(name, "unknown", "there is none on record")
    more = f", and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    good = f"{len(blobs)} blob{'' if len(blobs) == 1 else 's'} read, each is what its digest says"
    return verdict(not bad, name, good, ", ".join(bad[:SHOWN]) + more)


def title(image: ImageRecord) -> str:
    return f"{image.name}@{image.version}"
