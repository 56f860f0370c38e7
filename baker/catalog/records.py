"""The records of the catalog as frozen values. tables.py defines the database tables that store them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from baker.core.model import TestOutcome


@dataclass(frozen=True)
class ImageRecord:
    """An image. Sizes are in bytes, times are ISO 8601 in UTC ("2026-11-22T20:45:51Z")."""

    id: str  # 12 hex digits
    name: str
    version: str
    digest: str  # "sha256:..." of the raw disk, as `sha256sum` prints it for `bake export --format raw`
    fingerprint: str  # the plan's last key: 64 hex digits
    parent: str | None  # image id
    created: str
    size: int  # of its own blob in the store, without its ancestors' blobs
    virtual_size: int
    chain: tuple[str, ...]  # blob digests: its own delta first, then its backing blobs
    verified: bool
    build: str  # build id
    builder: str = "libvirt"
    firmware: str = "bios"
    ssh_username: str = "root"
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    matrix: Mapping[str, Any] = field(default_factory=dict)
    removed: str | None = None  # when `bake rm` removed it; its record stays
    origin: Literal["built", "committed"] = "built"  # committed: made from a machine that was changed by hand; it cannot be rebuilt


@dataclass(frozen=True)
class StepRecord:
    """One step of a build: its plan and its result."""

    index: int  # from 1
    name: str
    kind: str
    key: str  # content key: 64 hex digits
    origin: str  # "web.yaml:12:5"
    bundle: str = ""
    status: Literal["planned", "done", "cached", "failed", "skipped"] = "planned"
    seconds: float = 0.0
    exit_code: int | None = None
    attempts: int = 0
    ran: float = 0.0  # when it ran, seconds since the epoch; for a cached step, when its layer was made
    inputs: Mapping[str, Any] = field(default_factory=dict)  # the kind, config and files in its key; secrets are keyed hashes


@dataclass(frozen=True)
class BuildRecord:
    """A build, whether it succeeded or failed. It contains no secrets: sensitive values are keyed hashes."""

    id: str
    status: Literal["built", "verified", "stopped", "failed", "interrupted"]  # verified: an existing image was tested again
    started: str
    finished: str
    template_name: str
    template_version: str
    template_path: str
    template_text: str
    template_digest: str
    git_commit: str
    git_dirty: bool
    variables: Mapping[str, Any]  # name -> {"value": ..., "type": ..., "origin": ..., "sensitive": bool}
    source: Mapping[str, Any]  # kind, title, digest, parent, pins
    steps: tuple[StepRecord, ...]
    shape: Mapping[str, Any]
    machine: Mapping[str, Any]  # MachineFacts
    host: Mapping[str, str]  # name, system, kernel, machine, cpu
    tools: Mapping[str, str]  # bake, python, qemu, libvirt, ssh, ...
    who: str
    ci: Mapping[str, str]  # the CI run, as far as the environment names it
    timings: Mapping[str, float]  # seconds per stage
    tests: tuple[TestOutcome, ...] = ()
    verify: Literal["passed", "failed", "skipped", "none", "not reached"] = "not reached"
    verify_key: str = ""  # digest of the tests
    error: str = ""
    fingerprint: str = ""
    evidence: Mapping[str, str] = field(
        default_factory=dict
    )  # log, console, manifest, packages_before, packages_after, junit -> blob digest
    inputs: Mapping[str, str] = field(default_factory=dict)  # path of each file read -> sha256
    reproduction: Mapping[str, Any] = field(default_factory=dict)  # epoch, clock, lock, network, layout: what made it repeatable


@dataclass(frozen=True)
class Publication:
    """A copy of an image elsewhere, such as an AMI in one region. A publication belongs to exactly one image."""

    image: str  # image id
    kind: str  # "ami"
    reference: str  # "ami-0abc..."
    region: str = ""  # "eu-west-1"
    account: str = ""  # the owner's 12 digits
    snapshots: tuple[str, ...] = ()  # "snap-0abc..."
    details: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    removed: str | None = None  # when it was removed there


@dataclass(frozen=True)
class Channel:
    """A named pointer of an image name ("web" has "prod") to one of its images, as HCP Packer has channels of a bucket."""

    name: str
    channel: str
    image: str  # image id
    protected: bool
    protected_by: str
    who: str  # who changed it last
    changed: str


@dataclass(frozen=True)
class ChannelEvent:
    """One change of a channel. `before` and `after` are image IDs; None when the channel did not exist."""

    name: str
    channel: str
    action: Literal["set", "unset", "protect", "unprotect"]
    before: str | None
    after: str | None
    who: str
    at: str
    why: str


@dataclass(frozen=True)
class Revocation:
    """The revocation of an image, which must not be used from the time `effective` on.

    With `descendants`, present and future descendants inherit it: their revocation has the ID of the revoked image as `inherited_from`.
    """

    image: str  # image id
    reason: str
    who: str
    at: str
    effective: str
    descendants: bool = False
    inherited_from: str | None = None


@dataclass(frozen=True)
class JournalEntry:
    """An entry in the journal, the hash chain over all records: `hash` is the SHA-256 of the other fields."""

    serial: int
    kind: str  # "build", "image", "publication", "channel", "revocation", "release", "attestation", "rebuild", ...
    subject: str  # the record, as KIND:ID ("image:1f2e3d4c5b6a")
    digest: str  # "sha256:..." of the record as canonical JSON
    previous: str  # the hash of the previous entry, 64 hex digits; zeros for the first entry
    hash: str
    at: str


@dataclass(frozen=True)
class Attestation:
    """A signed statement about an image."""

    image: str  # image id
    predicate: str  # predicateType of the in-toto statement
    digest: str  # blob of the DSSE envelope
    keyid: str
    who: str
    at: str


@dataclass(frozen=True)
class Rebuild:
    """A rebuild of an image, with the level of reproducibility that it reached."""

    image: str  # image id
    level: int  # 0 to 3; -1 when no level was reached
    disk: str  # digest of the resulting raw disk
    report: str  # blob of the comparison, JSON
    host: Mapping[str, str]
    who: str
    at: str


Status = Literal["running", "succeeded", "failed", "rolled back"]


@dataclass(frozen=True)
class Release:
    """Release `v<number>` of an image name to a target. It is on record as `running` before anything is changed."""

    name: str
    number: int
    image: str  # image id
    channel: str  # the channel that pointed to the image; "" for a rollback
    target: str  # "asg/web-prod"
    status: Status
    who: str
    started: str
    region: str = ""
    account: str = ""
    rollback_of: int | None = None  # the release whose image it restores
    details: Mapping[str, Any] = field(default_factory=dict)  # reference, token, strategy, access, before, and the target's notes
    finished: str | None = None
    why: str = ""
    error: str = ""

    @property
    def title(self) -> str:
        return f"v{self.number}"
