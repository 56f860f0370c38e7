"""Frozen values that are passed from stage to stage."""

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
    disk_size: int | None = None  # None: the size of the source's disk
    firmware: Firmware = "bios"
    accelerator: Accelerator = "auto"
    machine_type: str = "q35"
    network: Network = "open"
    clock: int | None = None  # the time at which its clock starts, seconds since 1970; None: the real time


@dataclass(frozen=True)
class NetworkPolicy:
    """What a machine may reach.

    `port`: the port of the build's proxy on this host's loopback, 0 for none. `dump`: the file to which its packets are written.
    """

    network: Network = "open"
    port: int = 0
    dump: Path | None = None


OPEN = NetworkPolicy()


@dataclass(frozen=True)
class EgressEndpoint:
    """An address that the guest sent packets to. `name`: the name that it resolved to this address; "" when there is none."""

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
    """A disk image file on this host, which nobody writes to."""

    path: Path
    format: DiskFormat
    virtual_size: int  # bytes


@dataclass(frozen=True)
class Ami:
    """An Amazon machine image, from which EC2 instances boot. Its content cannot change; it can only be deregistered."""

    id: str  # "ami-0123456789abcdef0"
    region: str
    name: str
    owner: str  # the account's 12 digits
    creation_date: str  # ISO 8601, as AWS returns it
    architecture: str  # "x86_64", "arm64"
    root_device: str  # "/dev/xvda"
    virtual_size: int  # bytes, of the root volume
    snapshots: tuple[str, ...] = ()  # ids of the snapshots of its volumes, the root's first; empty for an image of another account
    boot_mode: str = ""  # "legacy-bios", "uefi", "uefi-preferred"; "" when the instance type decides
    encrypted: bool = False
    devices: tuple[str, ...] = ()  # names of all its EBS volumes, the root's first


Media = Disk | Ami


def disk_of(media: Media) -> Disk:
    """Return `media` if it is a disk of this host, else raise BuildError."""
    if isinstance(media, Disk):
        return media
    raise BuildError(
        f"{media.id} is an AMI in {media.region}: there is no disk of it on this host",
        hint="builder: {kind: ec2} builds on it; libvirt needs debootstrap, file, url, or an image that libvirt baked",
        code="source.ami-builder",
    )


@dataclass(frozen=True)
class SourceImage:
    """One exact source that a build starts from.

    `digest` ("sha256:...") is the digest of the raw disk, or for an AMI that of its identity (owner, region, id, creation date), since AWS
    gives no digest of its content. `pins` is stored in the lock file and the record, to find the same source again. `parent` is the id of
    the catalog image that the source is, if it is one.
    """

    kind: str  # debootstrap, file, url, image, ami
    title: str  # for people: "debian trixie (debootstrap)", "debian-13@13.1.0"
    digest: str
    media: Media
    pins: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None
    ssh_username: str | None = None  # the user who can log in, if the source says so
    chain: tuple[str, ...] = ()  # the digests of the blobs that hold the disk, its own first: the backing chain of an image built on it

    @property
    def disk(self) -> Disk:
        """Its disk on this host. BuildError when it is an AMI."""
        return disk_of(self.media)


@dataclass(frozen=True)
class Identity:
    """The identity of a machine for one boot. It is injected into the guest, so the host key is known before the first connection. The
    private files (mode 0600) are in a build's scratch directory and are removed with it."""

    hostname: str
    username: str
    client_key: Path  # private key file, OpenSSH format, ed25519; the public half is beside it with the suffix .pub
    host_key: Path  # the same for the guest's SSH host key

    @property
    def client_public(self) -> str:
        return self.client_key.with_suffix(".pub").read_text().strip()

    @property
    def host_public(self) -> str:
        return self.host_key.with_suffix(".pub").read_text().strip()


@dataclass(frozen=True)
class Endpoint:
    """The address of a machine's SSH server."""

    host: str
    port: int
    proxy_command: str | None = None  # for machines that this host cannot reach directly


@dataclass(frozen=True)
class Forward:
    """A forward from this host's loopback to a port of the guest. `host_port` 0: any free port."""

    guest_port: int
    host_port: int = 0


@dataclass(frozen=True)
class BootOptions:
    """Options of an ephemeral machine. `shape` overrides fields of MachineSpec; `timeout`: seconds until it must answer."""

    forwards: tuple[Forward, ...] = ()
    shape: Mapping[str, Any] = field(default_factory=dict)
    uri: str | None = None
    username: str | None = None
    timeout: float = 600.0


@dataclass(frozen=True)
class MachineFacts:
    """Facts about what a machine ran on, for the record."""

    hypervisor: str  # "QEMU 7.2.22"
    accelerator: str  # "tcg" or "kvm"
    accelerator_reason: str  # why this accelerator was chosen: "there is no /dev/kvm"
    machine_type: str
    connection: str  # libvirt URI, or "ec2:REGION/ZONE"
    tools: Mapping[str, str] = field(default_factory=dict)  # "libvirt": "9.0.0"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an image's manifest. `mode` is st_mode with its type bits; `target` is the target of a symbolic link."""

    path: str
    mode: int
    uid: int
    gid: int
    size: int
    sha256: str = ""  # of regular files
    target: str = ""
    mtime: int = 0
    xattrs: Mapping[str, str] = field(default_factory=dict)  # name -> hex of the value
    device: str = ""  # "major:minor" of a device node


@dataclass(frozen=True, slots=True)
class Package:
    """An installed package, as the image's own package database names it. Two packages are equal when their names, versions,
    architectures and kinds are: records of builds hold only these four."""

    name: str
    version: str  # for rpm EPOCH:VERSION-RELEASE, with epoch 0 when the package has none
    architecture: str = ""
    kind: str = "deb"  # "deb", "apk", "rpm"
    source: str = field(default="", compare=False)  # the source package, for rpm the name of its file; "" when not known
    licence: str = field(default="", compare=False)  # as the package's author wrote it; "" when not known


@dataclass(frozen=True)
class PackageList:
    """The packages of a disk, sorted by name. `unread`: an error for each package database that could not be read. The list is complete
    when it is empty."""

    packages: tuple[Package, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        return not self.unread


@dataclass(frozen=True)
class TestOutcome:
    """The outcome of one test of a verification."""

    __test__ = False

    name: str
    outcome: Literal["passed", "failed", "skipped", "error"]
    seconds: float
    message: str = ""


@dataclass(frozen=True)
class TestReport:
    """The report of a whole verification."""

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
    """A role or collection that a step fetched. `digest`: of all its files. `ref`: the branch, tag or commit that was requested from git,
    `commit` the commit that it named."""

    kind: str  # "role" or "collection"
    name: str
    version: str
    digest: str
    source: str = ""
    ref: str = ""
    commit: str = ""


@dataclass(frozen=True)
class Fetched:
    """One response in the record of downloads: one line of its index."""

    method: str
    url: str
    status: int
    headers: tuple[tuple[str, str], ...] = ()
    digest: str = ""  # "sha256:..." of the body; "" when the body is not recorded
    size: int = 0
    at: float = 0.0
    why: str = ""  # why the body is not recorded
