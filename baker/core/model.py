"""The frozen values that go from stage to stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from baker.core.errors import BuildError

Firmware = Literal["bios", "uefi"]
Accelerator = Literal["auto", "kvm", "tcg"]
Network = Literal["open", "report", "closed"]
DiskFormat = Literal["qcow2", "raw", "vmdk", "vhdx", "vdi", "vpc"]


@dataclass(frozen=True)
class MachineSpec:
    """The machine that a build runs on. Sizes in bytes."""

    cpus: int = 2
    memory: int = 1 << 30
    disk_size: int | None = None  # None: as large as the source's disk
    firmware: Firmware = "bios"
    accelerator: Accelerator = "auto"
    machine_type: str = "q35"
    network: Network = "open"
    clock: int | None = None  # what it takes for the time when it starts, seconds since 1970; None: the real time


@dataclass(frozen=True)
class NetworkPolicy:
    """What a machine may reach. `port`: of the build's proxy on this host's loopback, 0 for none; `dump`: where its packets are noted."""

    network: Network = "open"
    port: int = 0
    dump: Path | None = None


OPEN = NetworkPolicy()


@dataclass(frozen=True)
class EgressEndpoint:
    """A place that the guest spoke to. `name`: what it asked for by name, "" for an address that it had from elsewhere."""

    protocol: str  # "tcp", "udp"
    address: str
    port: int
    name: str = ""

    @property
    def title(self) -> str:
        host = self.name or (f"[{self.address}]" if ":" in self.address else self.address)
        return f"{host}:{self.port}/{self.protocol}"


@dataclass(frozen=True)
class Disk:
    """A disk image file on this host. Nobody writes to it once it has this type."""

    path: Path
    format: DiskFormat
    virtual_size: int  # bytes


@dataclass(frozen=True)
class Ami:
    """A machine image of EC2: what a machine there boots from, as `Disk` is for a hypervisor on this host. Deregistering it is all that
    can change it."""

    id: str  # "ami-0123456789abcdef0"
    region: str
    name: str
    owner: str  # the account's 12 digits
    creation_date: str  # ISO 8601, as AWS says it
    architecture: str  # "x86_64", "arm64"
    root_device: str  # "/dev/xvda"
    virtual_size: int  # bytes, of the root volume
    snapshots: tuple[str, ...] = ()  # ids of those that hold its volumes, the root's first; empty for an image of somebody else
    boot_mode: str = ""  # "legacy-bios", "uefi", "uefi-preferred", "" where AWS decides by instance type
    encrypted: bool = False
    devices: tuple[str, ...] = ()  # names of all its EBS volumes, the root's first


Media = Disk | Ami


def disk_of(media: Media) -> Disk:
    """`media` where only a disk of this host will do; BuildError for an AMI."""
    if isinstance(media, Disk):
        return media
    raise BuildError(
        f"{media.id} is an image of EC2 ({media.region}): there is no disk of it on this host",
        hint="builder: {kind: ec2} builds on it; libvirt needs debootstrap, file, url, or an image that was baked by libvirt",
        code="build.needs-disk",
    )


@dataclass(frozen=True)
class SourceImage:
    """One exact source: what a build starts from.

    `digest` ("sha256:...") is that of the raw disk for an image and a file, and covers everything below it; of an AMI it is that of its
    identity (owner, region, id, creation date), for nobody shows its bytes. `pins` is what the lock file and the record keep to
    find the same source again. `parent` is the id of the catalog image it is, if it is one.
    """

    kind: str  # debootstrap, file, url, image, ami
    title: str  # for people: "debian trixie (debootstrap)", "debian-13@13.1.0"
    digest: str
    media: Media
    pins: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None
    ssh_username: str | None = None  # who can log in, where the source knows
    chain: tuple[str, ...] = ()  # the blobs that hold the disk, its own first; what an image made of it is backed by

    @property
    def disk(self) -> Disk:
        """Its disk on this host. BuildError when it is an AMI."""
        return disk_of(self.media)


@dataclass(frozen=True)
class Identity:
    """Who a machine is for one boot, injected and never trusted on first use. The private files live in a build's scratch
    directory (mode 0600) and die with it."""

    hostname: str
    username: str
    client_key: Path  # private key file, OpenSSH format, ed25519; the public half is beside it with .pub
    host_key: Path  # the same for the guest's ssh host key

    @property
    def client_public(self) -> str:
        return self.client_key.with_suffix(".pub").read_text().strip()

    @property
    def host_public(self) -> str:
        return self.host_key.with_suffix(".pub").read_text().strip()


@dataclass(frozen=True)
class Endpoint:
    """Where a machine's SSH answers."""

    host: str
    port: int
    proxy_command: str | None = None  # for machines that this host does not reach directly


@dataclass(frozen=True)
class Forward:
    """A port of the guest that this host's loopback shows. `host_port` 0: any free one."""

    guest_port: int
    host_port: int = 0


@dataclass(frozen=True)
class BootOptions:
    """What a person wants of a throw-away machine. `shape` overrides fields of MachineSpec; `timeout` in seconds until it answers."""

    forwards: tuple[Forward, ...] = ()
    shape: Mapping[str, Any] = field(default_factory=dict)
    uri: str | None = None
    username: str | None = None
    timeout: float = 600.0


@dataclass(frozen=True)
class MachineFacts:
    """What a machine ran on, for the record."""

    hypervisor: str  # "QEMU 7.2.22"
    accelerator: str  # "tcg" or "kvm"
    accelerator_reason: str  # why that one: "the probe's kernel did not finish under KVM"
    machine_type: str
    connection: str  # libvirt URI, or the like
    tools: Mapping[str, str] = field(default_factory=dict)  # "libvirt": "9.0.0"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an image's manifest. `mode` has the type bits, as st_mode has; `target` is a symbolic link's."""

    path: str
    mode: int
    uid: int
    gid: int
    size: int
    sha256: str = ""  # of regular files
    target: str = ""
    mtime: int = 0
    xattrs: Mapping[str, str] = field(default_factory=dict)  # name -> hex of the value
    device: str = ""  # "major:minor" of device nodes


@dataclass(frozen=True, slots=True)
class Package:
    """An installed package, as the image's own package database names it."""

    name: str
    version: str
    architecture: str = ""
    kind: str = "deb"


@dataclass(frozen=True)
class TestOutcome:
    """One test of a verification."""

    __test__ = False

    name: str
    outcome: Literal["passed", "failed", "skipped", "error"]
    seconds: float
    message: str = ""


@dataclass(frozen=True)
class TestReport:
    """A whole verification."""

    __test__ = False

    outcomes: tuple[TestOutcome, ...]
    seconds: float
    junit: str  # JUnit XML

    @property
    def passed(self) -> bool:
        """True when every test passed or was skipped, and at least one ran."""
        return bool(self.outcomes) and all(o.outcome in ("passed", "skipped") for o in self.outcomes)


@dataclass(frozen=True)
class AnsibleContent:
    """`digest`: of all its files. `ref`: the branch, tag or commit that was asked for in git, `commit` what that was."""

    kind: str  # "role" or "collection"
    name: str
    version: str
    digest: str
    source: str = ""
    ref: str = ""
    commit: str = ""


@dataclass(frozen=True)
class Fetched:
    """One line of the index."""

    method: str
    url: str
    status: int
    headers: tuple[tuple[str, str], ...] = ()
    digest: str = ""  # "sha256:..." of the body; "" where there is none on record
    size: int = 0
    at: float = 0.0
    why: str = ""  # why the body is not on record
