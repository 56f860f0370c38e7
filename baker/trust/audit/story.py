"""The story of an image: all records about it as one frozen value, which the terminal, JSON and HTML views present."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from baker.artifacts import changes
from baker.artifacts.changes import Change
from baker.artifacts.codecs import read_lines
from baker.catalog.proofs import PastRevocation
from baker.catalog.records import (
    Attestation,
    BuildRecord,
    Channel,
    ChannelEvent,
    ImageRecord,
    Publication,
    Rebuild,
    Release,
    Revocation,
    StepRecord,
)
from baker.core.errors import BakeError
from baker.core.host_facts import now
from baker.core.model import Fetched
from baker.store.base import BlobStore
from baker.trust.audit.checks import BODY, Check, Checker, Subject, run

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog

T = TypeVar("T")
UNREADABLE = (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error)


@dataclass(frozen=True)
class Input:
    """An input of the build, and its digest."""

    kind: str  # template, source, file, fetched
    name: str
    digest: str
    note: str = ""


@dataclass(frozen=True)
class StepStory:
    """A step and its changes to the file tree. `step` is None for changes outside of steps: sealing, normalization, a boot."""

    step: StepRecord | None
    changes: tuple[Change, ...] = ()

    def count(self, kind: str) -> int:
        return sum(change.change == kind for change in self.changes)


@dataclass(frozen=True)
class Ancestor:
    """An image in the lineage, with its build if that is on record."""

    image: ImageRecord
    build: BuildRecord | None
    revoked: bool

    @property
    def fetched(self) -> int:
        """The number of different bodies that its build downloaded."""
        return sum(name.startswith(BODY) for name in self.build.evidence) if self.build else 0


@dataclass(frozen=True)
class Story:
    """Everything on record about an image."""

    at: str  # the time of the audit, ISO 8601
    line: tuple[Ancestor, ...]  # the image, then its ancestors up to the root
    inputs: tuple[Input, ...]
    steps: tuple[StepStory, ...]
    changes_known: bool
    fetches: tuple[Fetched, ...]
    publications: tuple[Publication, ...]
    channels: tuple[Channel, ...]
    channel_events: tuple[ChannelEvent, ...]
    releases: tuple[Release, ...]
    attestations: tuple[Attestation, ...]
    rebuilds: tuple[Rebuild, ...]
    revocation: Revocation | None
    revocations: tuple[PastRevocation, ...]
    checks: tuple[Check, ...]
    missing: tuple[str, ...] = ()  # evidence that could not be read, with the reasons

    @property
    def image(self) -> ImageRecord:
        return self.line[0].image

    @property
    def build(self) -> BuildRecord | None:
        return self.line[0].build

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.status == "failed")

    @property
    def verdict(self) -> str:
        """The result of the checks in one sentence."""
        if self.failed:
            return f"{len(self.failed)} of {len(self.checks)} checks failed: {', '.join(check.name for check in self.failed)}"
        unknown = [check.name for check in self.checks if check.status == "unknown"]
        passed = f"{len(self.checks) - len(unknown)} checks passed"
        return passed + (f"; there was nothing to check for {', '.join(unknown)}" if unknown else "")


def gather(catalog: Catalog, store: BlobStore, image: ImageRecord, checkers: Sequence[Checker] = ()) -> Story:
    """Collect the story of `image`. Evidence that is missing or damaged is named in `missing`, and a check has then failed."""
    line, at = catalog.history(image), now()
    builds = catalog.builds_of(line)
    revoked, build, missing = catalog.revocations.in_force(at), builds[0], list[str]()
    found = _read(build, "changes", store, missing, lambda blob: tuple(changes.read(blob)))
    fetches = _read(build, "fetches", store, missing, _fetches) or ()
    ids = [each.id for each in line]
    attestations, rebuilds = catalog.proofs.attestations(image.id), catalog.proofs.rebuilds(image.id)
    proofs = [("attestation", each.digest) for each in attestations] + [("report of a rebuild", each.report) for each in rebuilds]
    subject = Subject(line, builds, store, catalog.revocations.of(image.id), at, proofs)
    return Story(
        at=at,
        line=tuple(Ancestor(each, its, each.id in revoked) for each, its in zip(line, builds, strict=True)),
        inputs=tuple(_inputs(build, fetches)) if build else (),
        steps=tuple(_steps(build, found or ())) if build else (),
        changes_known=found is not None,
        fetches=fetches,
        publications=tuple(catalog.published.of(image.id, all=True)),
        channels=tuple(catalog.channels.of(image.id)),
        channel_events=tuple(catalog.proofs.channel_events(image.id)),
        releases=tuple(release for release in catalog.releases.all(image.name) if release.image == image.id),
        attestations=tuple(attestations),
        rebuilds=tuple(rebuilds),
        revocation=subject.revocation,
        revocations=tuple(catalog.proofs.revocations(ids)),
        checks=run(subject, checkers),
        missing=tuple(missing),
    )


def to_json(story: Story) -> dict[str, Any]:
    """The story as plain data for JSON, with the result of the checks. Evidence that is only a downloaded body is left out."""
    found = asdict(story)
    for each in found["line"]:
        if each["build"]:
            each["build"]["evidence"] = {name: digest for name, digest in each["build"]["evidence"].items() if not name.startswith(BODY)}
    for plain, step in zip(found["steps"], story.steps, strict=True):
        plain["counts"] = {kind: step.count(kind) for kind in ("added", "changed", "removed")}
    return {"verdict": {"ok": not story.failed, "text": story.verdict}, **found}


def _read(build: BuildRecord | None, name: str, store: BlobStore, missing: list[str], read: Callable[[BinaryIO], T]) -> T | None:
    """Read one kind of evidence. Returns None when there is none, and adds to `missing` when it cannot be read."""
    digest = build.evidence.get(name) if build else None
    if digest is None:
        return None
    try:
        with store.open(digest) as blob:
            return read(blob)
    except BakeError as error:
        missing.append(f"{name}: {error.message}")
    except UNREADABLE as error:
        missing.append(f"{name}: the blob {digest} cannot be read: {error}")
    return None


def _fetches(blob: BinaryIO) -> tuple[Fetched, ...]:
    import json

    known = set(Fetched.__dataclass_fields__)
    lines = (json.loads(line) for line in read_lines(blob))
    return tuple(Fetched(**{name: _frozen(value) for name, value in line.items() if name in known}) for line in lines)


def _frozen(value: Any) -> Any:
    return tuple((str(name), str(each)) for name, each in value) if isinstance(value, list) else value


def _inputs(build: BuildRecord, fetches: Iterable[Fetched]) -> Iterable[Input]:
    commit = build.git_commit[:12] + (" with uncommitted changes" if build.git_dirty else "") if build.git_commit else "not in git"
    yield Input("template", build.template_path, build.template_digest, commit)
    source: Mapping[str, Any] = build.source
    if source.get("digest"):
        pins = ", ".join(f"{name}={value}" for name, value in (source.get("pins") or {}).items())
        yield Input("source", str(source.get("title") or source.get("kind", "")), str(source["digest"]), pins)
    for path, digest in sorted(build.inputs.items()):
        yield Input("file", path, digest if ":" in digest else f"sha256:{digest}")
    seen = set()
    for each in fetches:
        if (each.url, each.digest) not in seen:
            seen.add((each.url, each.digest))
            yield Input("fetched", each.url, each.digest, each.why)


def _steps(build: BuildRecord, found: Iterable[Change]) -> Iterable[StepStory]:
    by_step: dict[int | None, list[Change]] = {}
    for change in found:
        by_step.setdefault(change.step, []).append(change)
    for step in build.steps:
        yield StepStory(step, tuple(by_step.pop(step.index, ())))
    rest = [change for left in by_step.values() for change in left]
    if rest:
        yield StepStory(None, tuple(rest))
