"""The seam to whatever runs machines. Real ones: libvirt, ec2. The unit tests have a fake."""

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
    """What an image is called where it is published, and while it is made."""

    name: str = ""
    version: str = ""
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


NAMELESS = ImageName()


@dataclass(frozen=True)
class Launch:
    """What a machine is to be. What it boots from (`media`) is never written: its disk is an overlay on that, or a volume made of it."""

    name: str  # unique among the build's machines: "build", "verify"
    media: Media
    shape: MachineSpec
    identity: Identity
    scratch: Path
    ledger: BuildLedger
    report: Reporter
    forwards: tuple[Forward, ...] = ()
    overlay: Path | None = None  # where its disk is to be made; None: among the machine's own files
    image: ImageName = NAMELESS  # what it is for
    clock: int | None = None  # what it takes for the time when it starts, seconds since 1970; None: the host's
    gate: NetworkPolicy = OPEN  # what it may reach

    @property
    def disk(self) -> Disk:
        """What it boots from, for a builder of this host's machines. BuildError when that is an AMI."""
        return disk_of(self.media)


class Machine(Protocol):
    """A machine that has been started. It need not answer yet: the communicator waits for that."""

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
        """A private directory with a short path, for sockets; it goes away with the machine."""

    def host_address(self, port: int) -> str | None:
        """Where the guest reaches what listens on this host's loopback at `port`, "10.0.2.2:3128"; None where it does not."""

    def reached(self) -> Sequence[EgressEndpoint]:
        """What its guest spoke to besides the build's proxy, where the gate says that this is noted; else nothing."""

    @property
    def awake(self) -> bool:
        """Whether its guest was up before it was started: it was restored."""

    def running(self) -> bool:
        """Whether it has power."""

    def reset(self) -> None:
        """Press the reset button: the guest boots again, its disk as it is."""

    def console_tail(self, lines: int = 20) -> tuple[str, ...]:
        """The last lines that the guest wrote to its serial console."""

    def forwarded(self, guest_port: int) -> int:
        """The host's loopback port that shows `guest_port`; adds the forward when there is none."""

    def keep(self) -> None:
        """Leave the machine running when its launch ends: somebody wants to look at it. Its ledger entries stay."""

    def shutdown(self, timeout: float) -> None:
        """Ask the guest to power off and wait for it. BuildError when it did not: a machine is never killed to be captured."""


class Builder(Protocol):
    """Runs machines."""

    @property
    def kind(self) -> str: ...

    def launch(self, request: Launch) -> AbstractContextManager[Machine]:
        """Start a machine; on leaving it is gone, with all that was made for it, unless `keep` was called for its name."""

    def capture(self, machine: Machine, destination: Path, products: Resources) -> Media:
        """The disk of a machine that has shut down, as a qcow2 delta at `destination` whose backing file is the disk it was
        launched from. Compact: freed clusters are not in it. What is made of it outside of this host is held by `products`."""

    def reclaim(self, kind: str, details: Mapping[str, Any]) -> bool:
        """Give back one ledger entry of a dead build; False when `kind` is not this builder's. Already gone counts as given back."""


@runtime_checkable
class SupportsSnapshot(Protocol):
    """A builder whose machines can be kept as they run, disk and memory, and be restored later: what layers are made of.

    A kept machine is a directory with `disk.qcow2` and whatever else the builder needs. The directory may be renamed, but its disk
    is referred to by a path relative to the disks above it, so that only the whole tree of kept machines moves."""

    def keeps(self) -> bool:
        """Whether machines of this connection can be kept."""

    def keep(self, machine: Machine, directory: Path, following: Path, reference: str) -> None:
        """Keep the machine as it is now in `directory`, in which its overlay lies. It stands still for about a second and goes on,
        its connections open, on a new overlay at `following` that names the one before as `reference`."""

    def pack(self, directory: Path) -> None:
        """Make what `keep` wrote small and safe from a crash of the host. May take its time: the machine goes on meanwhile."""

    def restore(self, request: Launch, directory: Path) -> AbstractContextManager[Machine]:
        """A machine that goes on where the one kept in `directory` stood, on a fresh overlay; `request.identity` is that one's.
        HostError when this host cannot restore it."""


@runtime_checkable
class SupportsPause(Protocol):
    """A builder whose machines' disks can be read on this host while they stand still."""

    def can_pause(self) -> bool:
        """Whether that is so for machines of this connection."""

    def paused_disk(self, machine: Machine) -> AbstractContextManager[Disk]:
        """The machine's disk as it is now; the machine stands still until the end, and all that it has written is in the disk's files."""

    def frozen(self, disk: Path) -> AbstractContextManager[None]:
        """A machine of another process that writes to `disk` stands still: the file is what a power cut would leave."""


@runtime_checkable
class Publisher(Protocol):
    """A builder whose images are where its machines run, and not files on this host."""

    def check(self, source: SourceImage, image: ImageName, build: str, report: Reporter) -> None:
        """Look for everything that can be known to go wrong before anything is made: BuildError or HostError with what would be right."""

    def publish(self, media: Media, image: ImageName, build: str, products: Resources, report: Reporter) -> tuple[Publication, ...]:
        """Bring a verified image to wherever it is to be used, let those use it who are to, and say where it is. What is made meanwhile is
        held by `products`; nothing that was there before is taken away."""

    def media(self, publications: Sequence[Publication]) -> Media:
        """What a machine boots from to run an image with these publications. NotFoundError when there is none where this builder is."""

    def remove(self, publication: Publication) -> None:
        """Take an image away where it was published. Already gone counts as taken away."""
