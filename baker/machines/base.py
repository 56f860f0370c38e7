"""The seam to whatever runs machines. The built-in builders are libvirt and ec2; docs/plugins.md says how to write another.

A builder implements `Builder`. What else it can do it says by implementing `SupportsSnapshot`, `SupportsPause` or `Publisher` as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from baker.catalog.records import Publication
from baker.core.events import Reporter
from baker.core.ledger import BuildLedger
from baker.core.model import (
    OPEN,
    Disk,
    EgressEndpoint,
    Endpoint,
    Forward,
    Identity,
    MachineFacts,
    MachineSpec,
    Media,
    NetworkPolicy,
    SourceImage,
    disk_of,
)
from baker.core.resources import Resources


@dataclass(frozen=True)
class ImageName:
    """The name of an image where it is published, and while it is built."""

    name: str = ""
    version: str = ""
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


NAMELESS = ImageName()


@dataclass(frozen=True)
class Launch:
    """A request to start a machine. Nobody writes to `media`: the machine's disk is an overlay on it, or a volume made of it."""

    name: str  # unique among the build's machines: "build", "verify"
    media: Media
    machine_spec: MachineSpec
    identity: Identity
    scratch: Path
    ledger: BuildLedger
    report: Reporter
    forwards: tuple[Forward, ...] = ()
    overlay: Path | None = None  # where to create its disk; None: among the machine's own files
    image: ImageName = NAMELESS  # the image that it is started for
    clock: int | None = None  # the time at which its clock starts, seconds since 1970; None: the host's
    network_policy: NetworkPolicy = OPEN  # what it may reach

    @property
    def disk(self) -> Disk:
        """`media` for a builder whose machines boot from disks of this host. BuildError when it is an AMI."""
        return disk_of(self.media)


class Machine(Protocol):
    """A machine that has been started. Its guest may still be booting: the communicator waits for SSH."""

    @property
    def name(self) -> str: ...
    @property
    def endpoint(self) -> Endpoint: ...
    @property
    def console_log(self) -> Path: ...
    @property
    def facts(self) -> MachineFacts: ...

    @property
    def runtime(self) -> Path:
        """A private directory with a short path, for sockets. It is removed with the machine."""

    def host_address(self, port: int) -> str | None:
        """The address at which the guest reaches `port` of this host's loopback, "10.0.2.2:3128"; None when it cannot."""

    def egress(self) -> Sequence[EgressEndpoint]:
        """What its guest connected to besides the build's proxy, when the network policy asks for that record; else nothing."""

    @property
    def restored(self) -> bool:
        """Whether the machine was restored: its guest was already up when it was started."""

    def running(self) -> bool:
        """Whether it is powered on."""

    def reset(self) -> None:
        """Press the reset button: the guest boots again from its disk as it is now."""

    def console_tail(self, lines: int = 20) -> tuple[str, ...]:
        """The last lines that the guest wrote to its serial console, oldest first."""

    def forwarded(self, guest_port: int) -> int:
        """The loopback port of this host that is forwarded to `guest_port`; adds the forward when there is none."""

    def keep(self) -> None:
        """Leave the machine running when its launch ends, for somebody to look at it. Its ledger entries stay."""

    def shutdown(self, timeout: float) -> None:
        """Ask the guest to power off, and wait. BuildError after `timeout` seconds: a machine is never killed to be captured."""


class Builder(Protocol):
    """Runs machines. Nothing is opened or started before the first launch."""

    @property
    def kind(self) -> str: ...

    def launch(self, request: Launch) -> AbstractContextManager[Machine]:
        """Start a machine. On leaving the context it is removed with everything that was created for it, unless its `keep` was called."""

    def capture(self, machine: Machine, destination: Path, products: Resources) -> Media:
        """Make the image of a machine that has shut down: a qcow2 delta at `destination` whose backing file is the disk that it was
        launched from, without freed clusters. What is created outside of this host is entered in `products`."""

    def reclaim(self, kind: str, details: Mapping[str, Any]) -> bool:
        """Remove what one ledger entry of a dead build names; False when `kind` is another builder's. Idempotent: it may be gone."""


@runtime_checkable
class SupportsSnapshot(Protocol):
    """A builder that can take snapshots of running machines, disk and memory, and restore them: layers are such snapshots.

    A snapshot is a directory with `disk.qcow2` and whatever else the builder needs. The directory may be renamed, but disks above it
    refer to its disk by a relative path, so snapshots can only be moved together."""

    def can_snapshot(self) -> bool:
        """Whether machines of this connection can be snapshotted."""

    def take_snapshot(self, machine: Machine, directory: Path, following: Path, reference: str) -> None:
        """Take a snapshot of the machine into `directory`, which already holds its overlay. The machine pauses for about a second. It
        continues with its connections open on a new overlay at `following`, whose backing file is named `reference`."""

    def finish_snapshot(self, directory: Path) -> None:
        """Compress what `take_snapshot` wrote, and make it durable. This may take long: the machine runs meanwhile."""

    def restore(self, request: Launch, directory: Path) -> AbstractContextManager[Machine]:
        """A machine that continues from the snapshot in `directory`, on a new overlay; `request.identity` is that of the snapshot.
        LayerError when this host cannot restore it."""


@runtime_checkable
class SupportsPause(Protocol):
    """A builder that can pause its machines, so that their disks can be read on this host."""

    def can_pause(self) -> bool:
        """Whether machines of this connection can be paused."""

    def paused_disk(self, machine: Machine) -> AbstractContextManager[Disk]:
        """The machine's disk as it is now. It is paused until the context ends, and all that it has written is in the files."""

    def paused_writer(self, disk: Path) -> AbstractContextManager[None]:
        """Pause the machine of another process that writes to `disk`: the file is then what a power cut would leave."""


@runtime_checkable
class Publisher(Protocol):
    """A builder whose images are where its machines run, and not disks on this host. Its configuration says `publishes`."""

    def check(self, source: SourceImage, image: ImageName, build: str, report: Reporter) -> None:
        """Check everything that can be checked before anything is created. BuildError or HostError, with what would be right."""

    def publish(self, media: Media, image: ImageName, build: str, products: Resources, report: Reporter) -> tuple[Publication, ...]:
        """Copy a verified image to every place that the configuration names, grant access to it, and return where it is. What is created
        is entered in `products`; nothing that existed before is removed."""

    def media(self, publications: Sequence[Publication]) -> Media:
        """What a machine boots from to run an image with these publications. NotFoundError when none is where they run."""

    def remove(self, publication: Publication) -> None:
        """Remove an image from where it was published. Idempotent: it may be gone already."""
