"""The frozen values that the stages of a build pass on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from baker.catalog.records import Publication
from baker.core.model import Disk, MachineFacts, Media, PackageList, TestReport

if TYPE_CHECKING:
    from baker.build.change_tracking import ChangedInodes
    from baker.disks.normalize import Normalized


@dataclass(frozen=True)
class Captured:
    """The disk or AMI captured from the build machine after its shutdown, with facts about the machine."""

    media: Media
    facts: MachineFacts | None = None  # None: no machine ran, because there was nothing to provision
    guest_listing: GuestListing | None = None  # only if the host cannot read the file system
    normalized: Normalized | None = None  # how the disk was normalized, for a reproducible template
    not_normalized: str = ""  # why it could not be normalized
    before_normalizing: Disk | None = None  # the disk before normalization, if `media` is normalized
    changed_inodes: ChangedInodes | None = None  # which step changed each inode of the machine's disk; None: unknown
    publications: tuple[Publication, ...] = ()  # their `image` is still empty


@dataclass(frozen=True)
class VerifyOutcome:
    """The result of the verification. `report` is None unless tests ran."""

    status: Literal["passed", "skipped", "none"]
    report: TestReport | None = None
    facts: MachineFacts | None = None


@dataclass(frozen=True)
class GuestListing:
    """A manifest and a package list made inside the guest. `manifest` is a file of gzipped JSON lines."""

    manifest: Path
    packages: PackageList


@dataclass(frozen=True)
class Inspection:
    """The content of a captured disk. `manifest`: a file of gzipped JSON lines, one FileEntry each; None if the disk cannot be read."""

    digest: str
    manifest: Path | None
    files: int
    packages_before: PackageList
    packages_after: PackageList
    changes: Path | None = None  # the evidence `changes`; None if it is unknown
