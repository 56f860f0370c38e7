"""What the catalog holds, as frozen values. The tables (tables.py) are how it holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from baker.core.model import TestOutcome


@dataclass(frozen=True)
class ImageRecord:
    """An image that exists. Sizes in bytes; times are ISO 8601 UTC ("2026-11-22T20:45:51Z")."""

    id: str  # 12 hex digits
    name: str
    version: str
    digest: str  # "sha256:..." of the raw disk: what `sha256sum` says of `bake export --format raw`
    fingerprint: str  # the plan's last key: 64 hex digits
    parent: str | None  # image id
    created: str
    size: int  # what it adds in the store to its parent; without a parent, all of it
    virtual_size: int
    chain: tuple[str, ...]  # blob digests: its own delta first, then what it is backed by
    verified: bool
    build: str  # build id
    builder: str = "libvirt"
    firmware: str = "bios"
    ssh_username: str = "root"
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    matrix: Mapping[str, Any] = field(default_factory=dict)
    removed: str | None = None  # when `bake rm` took it away; its record stays
    origin: Literal["built", "committed"] = "built"  # committed: a machine changed by hand, which nobody can make again


@dataclass(frozen=True)
class StepRecord:
    """One step of a build as it was planned and as it went."""

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
    ran: float = 0.0  # when it was carried out, seconds since the epoch: for a cached step, when its layer was made
    inputs: Mapping[str, Any] = field(default_factory=dict)  # kind, config and files that its key was made of; secrets as keyed hashes


@dataclass(frozen=True)
class BuildRecord:
    """How an image was made, or how making it failed. No value in it is secret: sensitive ones are keyed hashes."""

    id: str
    status: Literal["built", "verified", "stopped", "failed", "interrupted"]  # verified: an image of before was tested anew
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
    ci: Mapping[str, str]  # which CI run, where the environment tells
    timings: Mapping[str, float]  # seconds per stage
    tests: tuple[TestOutcome, ...] = ()
    verify: Literal["passed", "failed", "skipped", "none", "not reached"] = "not reached"
    verify_key: str = ""  # digest of what it was tested with
    error: str = ""
    fingerprint: str = ""
    evidence: Mapping[str, str] = field(
        default_factory=dict
    )  # log, console, manifest, packages_before, packages_after, junit -> blob digest
    inputs: Mapping[str, str] = field(default_factory=dict)  # path of each file read -> sha256
    reproduction: Mapping[str, Any] = field(default_factory=dict)  # epoch, clock, lock, network, layout: what made it repeatable


@dataclass(frozen=True)
class Publication:
    """An image as it is somewhere else: an AMI in one region. Several images cannot be one publication."""

    image: str  # image id
    kind: str  # "ami"
    reference: str  # "ami-0abc..."
    region: str = ""  # "eu-west-1"
    account: str = ""  # the owner's 12 digits
    snapshots: tuple[str, ...] = ()  # "snap-0abc..."
    details: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    removed: str | None = None  # when it was taken away there


@dataclass(frozen=True)
class Channel:
    """A named pointer of an image name ("web" has "prod") to one of its images, as HCP Packer has channels of a bucket."""

    name: str
    channel: str
    image: str  # image id
    protected: bool
    protected_by: str
    who: str  # changed it last
    changed: str


@dataclass(frozen=True)
class ChannelEvent:
    """One change of a channel. `before` and `after` are image ids; None where the channel did not exist."""

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
    """Why an image must not be used from `effective` on. With `descendants` everything made on it neither, now or later: those
    have the same one with `inherited_from`, the id of the image that was revoked."""

    image: str  # image id
    reason: str
    who: str
    at: str
    effective: str
    descendants: bool = False
    inherited_from: str | None = None


@dataclass(frozen=True)
class JournalEntry:
    """A record's digest in the chain over all records: `hash` is the SHA-256 of the other fields, `previous` that of the entry before."""

    serial: int
    kind: str  # "build", "image", "publication", "channel", "revocation", "release", "attestation", "rebuild", ...
    subject: str  # what the record is of: an id
    digest: str  # "sha256:..." of the record as canonical JSON
    previous: str  # 64 hex digits; zeros for the first
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
    """That an image was made again, and how far the result is the same."""

    image: str  # image id
    level: int  # 0 to 3
    disk: str  # digest of the raw disk that came out
    report: str  # blob of the comparison, JSON
    host: Mapping[str, str]
    who: str
    at: str


Status = Literal["running", "succeeded", "failed", "rolled back"]


@dataclass(frozen=True)
class Release:
    """Bringing an image to a target: release `v<number>` of its name. It is `running` from before anything is changed."""

    name: str
    number: int
    image: str  # image id
    channel: str  # whose image it was; "" for a rollback
    target: str  # "asg/web-prod"
    status: Status
    who: str
    started: str
    region: str = ""
    account: str = ""
    rollback_of: int | None = None  # the release whose image it brings back
    details: Mapping[str, Any] = field(default_factory=dict)  # reference, before, settings, and what the target noted on its way
    finished: str | None = None
    why: str = ""
    error: str = ""

    @property
    def title(self) -> str:
        return f"v{self.number}"
