"""The interface of publication targets: a kind of target turns an image on this host into something that is used elsewhere.

The built-in kind is `ami`. A package can add another one in the entry-point group `baker.publish_targets`: a class that implements
`PublishTarget` and is called without arguments.
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
    """The record of publications, which is a part of the catalog."""

    def add(self, publication: Publication) -> None:
        """Put a publication on record. This is the commit point of publishing."""

    def of(self, image_id: str, *, kind: str | None = None, region: str | None = None) -> Sequence[Publication]:
        """The present publications of an image, oldest first."""


@dataclass(frozen=True)
class Baked:
    """A baked image whose disk is on this host."""

    image: ImageRecord
    disk: Disk
    machine: str = "x86_64"  # the architecture of its machines as `uname -m` prints it


@dataclass(frozen=True)
class PublishOptions:
    """The user's options for a publication. A target raises UsageError for an option that it cannot honour."""

    regions: tuple[str, ...] = ()  # in order: the first region gets the upload; empty: the configured region
    name: str = ""  # the name at the target; "": made from the image's name, version and ID
    tags: Mapping[str, str] = field(default_factory=dict)
    kms_keys: tuple[str, ...] = ()  # ARNs of keys to encrypt with, at most one per region
    boot_mode: str = ""  # "": chosen by the firmware that the image was verified with
    verify: bool = True
    force: bool = False  # publish again even if the image is published there already
    profile: str | None = None  # a profile of the AWS CLI configuration
    instance_type: str = ""  # the instance type for verification
    subnet: str = ""  # the subnet for verification; "": the default network


@dataclass(frozen=True)
class PublishRequest:
    """One image to publish, with everything that a target needs for it."""

    baked: Baked
    options: PublishOptions
    earlier: tuple[Baked, ...]  # similar images that may be published already, the most similar first
    publications: Publications
    ledger: Ledger
    leases: Leases
    state: Path  # a directory for state that must survive this process
    report: Reporter
    clock: Clock = field(default_factory=Clock)


@dataclass(frozen=True)
class Published:
    """The result of publishing to one region."""

    publication: Publication
    unchanged: bool = False  # it was published there already
    sent: int = 0  # uploaded bytes
    seconds: float = 0.0


class PublishTarget(Protocol):
    """A kind of publication target."""

    @property
    def kind(self) -> str:
        """The name of the kind for `--to`."""

    def publish(self, request: PublishRequest) -> tuple[Published, ...]:
        """Publish an image and put it on record, one publication per region.

        BakeError when that fails. Resources that are not on record are then deleted, or still in the ledger.
        """

    def reclaim(self, kind: str, details: Mapping[str, object]) -> bool:
        """Delete the resource of a dead process's ledger entry. A resource that no longer exists counts as deleted.

        Returns False when `kind` is not a kind of this target.
        """
