"""Values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from baker.catalog.records import Publication
from baker.core.model import Disk, MachineFacts, Media, Package, TestReport

if TYPE_CHECKING:
    from baker.build.change_tracking import ChangedPaths
    from baker.disks.normalize import Normalized


@dataclass(frozen=True)
class Captured:
    """What is left of the build machine after its shutdown, its disk or an AMI, and what is known of the machine."""

    media: Media
    facts: MachineFacts | None = None  # None: there was nothing to provision, so no machine ran
    guest_listing: GuestListing | None = None  # where the host cannot read the file system
    normalized: Normalized | None = None  # how its disk was laid out again, for a template that is to be reproducible
    not_normalized: str = ""  # why it was not
    left: Disk | None = None  # the disk as the machine left it, where `media` was laid out anew of it
    touched: ChangedPaths | None = None  # which step changed what on that disk; None: that is not known
    publications: tuple[Publication, ...] = ()  # where it is, once it is published; their `image` is still empty


@dataclass(frozen=True)
class VerifyOutcome:
    """What verification says. `report` is None unless tests ran."""

    status: Literal["passed", "skipped", "none"]
    report: TestReport | None = None
    facts: MachineFacts | None = None


@dataclass(frozen=True)
class GuestListing:
    """A manifest and a package list that were made inside the guest. `manifest` is a file of gzipped JSON lines."""

    manifest: Path
    packages: tuple[Package, ...]


@dataclass(frozen=True)
class Inspection:
    """What a captured disk holds. `manifest` is a file of gzipped JSON lines, one FileEntry each, or None where nobody could read it."""

    digest: str
    manifest: Path | None
    files: int
    packages_before: tuple[Package, ...]
    packages_after: tuple[Package, ...]
    changes: Path | None = None  # the evidence `changes`; None where that cannot be told
