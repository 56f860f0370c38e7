"""The seam to where baked images are published: a kind of target turns an image of this host into something that is used elsewhere.

The built-in one is `ami`. A package can bring another in the entry-point group `baker.publish_targets`: a class whose instances are
`PublishTarget`s and are made without arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from baker.catalog.catalog import Catalog
from baker.catalog.records import ImageRecord, Publication
from baker.core.clock import Clock
from baker.core.events import Reporter, Sink
from baker.core.home import Home
from baker.core.leases import Leases
from baker.core.ledger import Ledger
from baker.core.model import Disk
from baker.store.base import BlobStore


class PublishServices(Protocol):
    """The part of `Services` that publishing and archives use."""

    @property
    def home(self) -> Home: ...
    @property
    def catalog(self) -> Catalog: ...
    @property
    def store(self) -> BlobStore: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def leases(self) -> Leases: ...
    @property
    def sink(self) -> Sink: ...
    @property
    def clock(self) -> Clock: ...


class Publications(Protocol):
    """The record of what is published where: a part of the catalog."""

    def add(self, publication: Publication) -> None:
        """Put a publication on record: the commit point of a publication."""

    def of(self, image_id: str, *, kind: str | None = None, region: str | None = None) -> Sequence[Publication]:
        """Where an image is published now, first made first."""


@dataclass(frozen=True)
class Baked:
    """A baked image whose disk is on this host."""

    image: ImageRecord
    disk: Disk
    machine: str = "x86_64"  # what `uname -m` says of the machines that run it


@dataclass(frozen=True)
class PublishOptions:
    """What a person wants of a publication. A target refuses what it cannot do (UsageError)."""

    regions: tuple[str, ...] = ()  # where; the first is the one that is published to first; none: the configured one
    name: str = ""  # what it is called there; "": made of the image's name, version and id
    tags: Mapping[str, str] = field(default_factory=dict)
    kms_keys: tuple[str, ...] = ()  # ARNs of keys to encrypt with, at most one per region
    boot_mode: str = ""  # "": by the firmware that the image was verified with
    verify: bool = True
    force: bool = False  # although it is published there already
    profile: str | None = None  # whose credentials, as the AWS CLI has profiles
    instance_type: str = ""  # what to verify on
    subnet: str = ""  # where to verify; "": the default network


@dataclass(frozen=True)
class PublishRequest:
    """One image to publish, and what a target needs for it."""

    baked: Baked
    options: PublishOptions
    earlier: tuple[Baked, ...]  # images that may be published already and share much with this one, likeliest first
    publications: Publications
    ledger: Ledger
    leases: Leases
    state: Path  # a directory for what has to outlive this process
    report: Reporter
    clock: Clock = field(default_factory=Clock)


@dataclass(frozen=True)
class Published:
    """How publishing went at one place."""

    publication: Publication
    unchanged: bool = False  # it was there already
    sent: int = 0  # bytes that went over the line
    seconds: float = 0.0


class PublishTarget(Protocol):
    """A kind of place."""

    @property
    def kind(self) -> str:
        """What `--to` calls it."""

    def publish(self, order: PublishRequest) -> tuple[Published, ...]:
        """Publish an image and put it on record, one publication per place. BakeError when that fails: what was made and is on no record
        is gone then, or in the ledger."""

    def reclaim(self, kind: str, details: Mapping[str, object]) -> bool:
        """Give back one ledger entry of a dead process; False when `kind` is not this target's. Already gone counts as given back."""
