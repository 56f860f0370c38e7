"""The frozen values that go from one stage of a build to the next."""

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
    """What was captured of the build machine after its shutdown, a disk or an AMI, and what is known about the machine."""

    media: Media
    facts: MachineFacts | None = None  # None: there was nothing to provision, so no machine ran
    guest_listing: GuestListing | None = None  # where the host cannot read the file system
    normalized: Normalized | None = None  # how the disk was normalized, for a reproducible template
    not_normalized: str = ""  # why it could not be
    before_normalizing: Disk | None = None  # the disk as the machine left it, where `media` is the normalized one
    changed_inodes: ChangedInodes | None = None  # which step changed what on the machine's disk; None: that is not known
    publications: tuple[Publication, ...] = ()  # where it is published; their `image` is still empty


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
    """What a captured disk holds. `manifest` is a file of gzipped JSON lines, one FileEntry each; None where it could not be read."""

    digest: str
    manifest: Path | None
    files: int
    packages_before: PackageList
    packages_after: PackageList
    changes: Path | None = None  # the evidence `changes`; None where it is not known
