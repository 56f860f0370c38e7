"""The checks of `bake audit`: every blob against its digest, the disk against its record, each image against its parent.

A checker is a callable that takes a `Subject` and yields the results. `bake audit` runs the checkers in `CHECKS` and those it is given.
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
from baker.render.text import plural
from baker.store.base import BlobStore

SHOWN = 5  # the number of bad blobs that a check names
BODY = "body:"  # the prefix of evidence that is the body of a download by a guest


@dataclass(frozen=True)
class Check:
    """The result of one check. "unknown" means that there was nothing to check, which is not a fault."""

    name: str
    status: Literal["ok", "failed", "unknown"]
    detail: str


@dataclass(frozen=True)
class Subject:
    """An image to check, with its ancestors and their builds."""

    line: Sequence[ImageRecord]  # the image, then its ancestors up to the root
    builds: Sequence[BuildRecord | None]  # of each image in `line`; None when the record is missing
    store: BlobStore
    revocation: Revocation | None
    at: str  # the present time, ISO 8601
    proofs: Sequence[tuple[str, str]] = ()  # (what, blob digest) of attestations and of reports of rebuilds
    scratch: Path | None = None

    @property
    def image(self) -> ImageRecord:
        return self.line[0]

    @property
    def build(self) -> BuildRecord | None:
        return self.builds[0]


Checker = Callable[[Subject], Iterable[Check]]


def result(ok: bool, name: str, good: str, bad: str) -> Check:
    """A check that is "ok" with the detail `good`, or "failed" with the detail `bad`."""
    return Check(name, "ok" if ok else "failed", good if ok else bad)


def template(subject: Subject) -> Iterator[Check]:
    """Check that the text of each template on record has the digest on record. Only the image's own and wrong ones are reported."""
    for image, build in zip(subject.line, subject.builds, strict=True):
        if build is None:
            yield Check("record of the build", "failed", f"the record of build {image.build}, which made {title(image)}, is missing")
            continue
        if image.origin == "committed" and not build.template_text and not build.template_digest:
            if image is subject.image:
                yield Check("template", "unknown", "it was committed from a shell, not built from a template")
            continue
        found = "sha256:" + hashlib.sha256(build.template_text.encode()).hexdigest()
        if image is subject.image or found != build.template_digest:
            good = f"the text on record has the digest {build.template_digest}"
            bad = f"the text on record for {title(image)} has the digest {found}, not {build.template_digest}"
            yield result(found == build.template_digest, "template", good, bad)


def lineage(subject: Subject) -> Iterator[Check]:
    """Check that each image's disk is backed by its parent's, and that its build started from that disk."""
    wrong = []
    for image, build, parent in zip(subject.line, subject.builds, subject.line[1:], strict=False):
        if image.chain and image.chain[1:] != parent.chain:
            wrong.append(f"the disk of {title(image)} is not backed by that of {title(parent)}")
        started_from = build.source.get("digest") if build else None
        if started_from and started_from != parent.digest:
            wrong.append(f"{title(image)} was built from {started_from}, but {title(parent)} is {parent.digest}")
    if not wrong and subject.line[-1].parent:
        wrong.append(f"the record of image {subject.line[-1].parent} is missing")
    good = f"{plural(len(subject.line) - 1, 'ancestor')}, each matching the build of its child"
    yield result(not wrong, "lineage", good, "; ".join(wrong))


def disk(subject: Subject) -> Iterator[Check]:
    """Check the blobs of the disk, and the digest of the raw disk that they form."""
    image = subject.image
    if not image.chain:
        yield Check("disk", "unknown", f"made by the builder {image.builder}: its disk is not on this host")
        return
    if image.removed:
        yield Check("disk", "unknown", f"removed at {image.removed}: its disk may no longer exist")
        return
    blobs = blobs_check("disk blobs", [(f"disk {number}", digest) for number, digest in enumerate(image.chain)], subject.store)
    yield blobs
    if blobs.status != "ok":
        return  # a disk with a bad blob is bad itself, and may not even open
    try:
        found = raw_digest(stored(image, subject.store), scratch=subject.scratch)
    except BakeError as error:
        yield Check("disk", "failed", f"cannot be read: {error.message}")
        return
    bad = f"its digest is {found}, but {image.digest} is on record"
    yield result(found == image.digest, "disk", f"its digest is {found}", bad)


def evidence(subject: Subject) -> Iterator[Check]:
    """Check the blobs of the evidence of the image's build and its ancestors' builds."""
    for image, build in zip(subject.line, subject.builds, strict=True):
        if build is None:
            continue
        of = "" if image is subject.image else f" of {title(image)}"
        named = [(name, digest) for name, digest in sorted(build.evidence.items()) if not name.startswith(BODY)]
        bodies = [(name, digest) for name, digest in sorted(build.evidence.items()) if name.startswith(BODY)]
        yield blobs_check(f"evidence{of}", named, subject.store)
        if bodies:
            yield blobs_check(f"downloads{of}", bodies, subject.store)


def proofs(subject: Subject) -> Iterator[Check]:
    """Check the blobs of attestations and rebuild reports. attestations.py checks the signatures."""
    if subject.proofs:
        yield blobs_check("attestations and rebuilds", subject.proofs, subject.store)


def tests(subject: Subject) -> Iterator[Check]:
    """Report the result of the tests that ran before the image was registered."""
    build = subject.build
    if build is None:
        return
    if build.verify == "passed":
        yield Check("tests", "ok", f"{sum(test.outcome == 'passed' for test in build.tests)} passed before it was registered")
    elif build.verify == "failed":
        yield Check("tests", "failed", "its tests failed")
    else:
        yield Check("tests", "unknown", f"it was never tested (status {build.verify})")


def revocation(subject: Subject) -> Iterator[Check]:
    """Report whether the image is revoked, directly or through an ancestor."""
    found = subject.revocation
    if found is None:
        yield Check("revocation", "ok", "neither the image nor an ancestor is revoked")
        return
    through = f" through image {found.inherited_from}" if found.inherited_from else ""
    detail = f"revoked{through} as of {found.effective} by {found.who}: {found.reason}"
    yield Check("revocation", "failed" if found.effective <= subject.at else "ok", detail)


CHECKS: tuple[Checker, ...] = (template, lineage, disk, evidence, proofs, tests, revocation)


def run(subject: Subject, more: Sequence[Checker] = ()) -> tuple[Check, ...]:
    """Run every checker, one after the other. A checker that raises BakeError gives a failed check."""
    found: list[Check] = []
    for checker in (*CHECKS, *more):
        try:
            found += checker(subject)
        except BakeError as error:
            found.append(Check(checker.__name__, "failed", error.message))
    return tuple(found)


def blobs_check(name: str, blobs: Sequence[tuple[str, str]], store: BlobStore) -> Check:
    """Check that blobs, given as (name, digest), are in the store and match their digests."""
    bad = []
    for each, digest in blobs:
        if not store.has(digest):
            bad.append(f"{each} ({digest}) is missing")
        elif not store.verify(digest):
            bad.append(f"{each} ({digest}) was changed")
    if not blobs:
        return Check(name, "unknown", "none is on record")
    more = f", and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    good = f"{plural(len(blobs), 'blob')} read, all match their digests"
    return result(not bad, name, good, ", ".join(bad[:SHOWN]) + more)


def title(image: ImageRecord) -> str:
    return f"{image.name}@{image.version}"
