"""The domain XML of a machine (https://libvirt.org/formatdomain.html)."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from baker.core.model import OPEN, MachineSpec, NetworkPolicy
from baker.machines.libvirt.network import SANDBOX, SANDBOX_CAPABILITY, arguments

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
CREDENTIAL_PREFIX = "opt/io.systemd.credentials/"  # systemd.system-credentials(7): "fw_cfg"
TRANSLATION_CACHE_MIB = 512  # of TCG: large enough for the code of a whole boot, so that nothing is translated twice

# The processor has all features that TCG can emulate ("maximum"), so that guests which need x86-64-v3 run, except for two that make an
# emulated boot slower: five levels of page tables, useful only above 64 TiB, and the switch around each copy from and to user space.
COSTLY_FEATURES = ("la57", "smap")

ET.register_namespace("qemu", QEMU_NAMESPACE)


@dataclass(frozen=True)
class DomainSpec:
    """The content of the XML. Paths are those on the host that the domain runs on."""

    name: str
    uuid: str
    machine_spec: MachineSpec
    accelerator: Literal["kvm", "tcg"]
    disk: Path  # qcow2
    console_log: Path | None = None
    credentials: Mapping[str, Path] = field(default_factory=dict)
    seed: Path | None = None  # raw, read only
    loader: Path | None = None  # UEFI
    nvram: Path | None = None  # UEFI variables, this machine's own copy; without a loader libvirt creates it
    clock: int | None = None  # the time at which its clock starts, seconds since 1970; None: the host's
    network_policy: NetworkPolicy = OPEN


def domain_xml(spec: DomainSpec) -> str:
    """The XML of a domain."""
    domain = ET.Element("domain", type="kvm" if spec.accelerator == "kvm" else "qemu")
    _text(domain, "name", spec.name)
    _text(domain, "uuid", spec.uuid)
    _text(domain, "memory", str(spec.machine_spec.memory), unit="bytes")
    _text(domain, "vcpu", str(spec.machine_spec.cpus))
    if spec.credentials:
        _credentials(domain, spec.credentials)
    _os(domain, spec)
    _features(domain, spec)
    _cpu(domain, spec)
    if spec.clock is None:
        ET.SubElement(domain, "clock", offset="utc")
    else:
        ET.SubElement(domain, "clock", offset="absolute", start=str(spec.clock))
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        _text(domain, event, action)
    _devices(domain, spec)
    _user_network(domain, spec.network_policy)
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode")


def snapshot_xml(memory: Path, overlay: Path) -> str:
    """The XML of a snapshot (https://libvirt.org/formatsnapshot.html): the memory is written to a file, and the disk continues on an
    overlay."""
    snapshot = ET.Element("domainsnapshot")
    ET.SubElement(snapshot, "memory", snapshot="external", file=str(memory))
    disks = ET.SubElement(snapshot, "disks")
    disk = ET.SubElement(disks, "disk", name="vda", snapshot="external", type="file")
    ET.SubElement(disk, "driver", type="qcow2")
    ET.SubElement(disk, "source", file=str(overlay))
    ET.SubElement(disks, "disk", name="vdb", snapshot="no")
    return ET.tostring(snapshot, encoding="unicode")


@dataclass(frozen=True)
class RestoredFiles:
    """The new files of a restored machine, and its network policy."""

    disk: Path
    seed: Path
    console_log: Path
    credentials: Mapping[str, Path]
    nvram: Path | None = None
    network_policy: NetworkPolicy = OPEN


def with_files(description: str, files: RestoredFiles) -> str:
    """The XML of a snapshot with other files and another network policy. Name and UUID stay, which libvirt requires."""
    domain = ET.fromstring(description)  # noqa: S314 - libvirt's own
    for disk in domain.iterfind("devices/disk"):
        target, source = disk.find("target"), disk.find("source")
        assert target is not None and source is not None
        source.set("file", str(files.disk if target.get("dev") == "vda" else files.seed))
        for backing in disk.findall("backingStore"):
            disk.remove(backing)  # libvirt finds the chain by itself
    for log in domain.iterfind("devices/*/log"):
        log.set("file", str(files.console_log))
    for entry in domain.iterfind("sysinfo/entry"):
        entry.set("file", str(files.credentials[entry.get("name", "").removeprefix(CREDENTIAL_PREFIX)]))
    for name in ("commandline", "capabilities"):
        for old in domain.findall(f"{{{QEMU_NAMESPACE}}}{name}"):
            domain.remove(old)
    _user_network(domain, files.network_policy)
    nvram = domain.find("os/nvram")
    if nvram is not None and files.nvram:
        nvram.text = str(files.nvram)
    return ET.tostring(domain, encoding="unicode")


def uuid_of(description: str) -> str:
    """The UUID in a machine's XML."""
    found = ET.fromstring(description).findtext("uuid")  # noqa: S314 - libvirt's own
    assert found
    return found


def _credentials(domain: ET.Element, credentials: Mapping[str, Path]) -> None:
    """Add the credentials as files, not as values: libvirt puts values on QEMU's command line."""
    sysinfo = ET.SubElement(domain, "sysinfo", type="fwcfg")
    for name, path in credentials.items():
        ET.SubElement(sysinfo, "entry", name=CREDENTIAL_PREFIX + name, file=str(path))


def _os(domain: ET.Element, spec: DomainSpec) -> None:
    os = ET.SubElement(domain, "os", {"firmware": "efi"} if spec.nvram and not spec.loader else {})
    _text(os, "type", "hvm", arch="x86_64", machine=spec.machine_spec.machine_type)
    if spec.loader:
        _text(os, "loader", str(spec.loader), readonly="yes", type="pflash")
    elif spec.nvram:  # libvirt chooses a firmware that does not need a signed boot loader
        ET.SubElement(ET.SubElement(os, "firmware"), "feature", enabled="no", name="secure-boot")
    if spec.nvram:
        _text(os, "nvram", str(spec.nvram))
    ET.SubElement(os, "boot", dev="hd")


def _features(domain: ET.Element, spec: DomainSpec) -> None:
    features = ET.SubElement(domain, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    if spec.accelerator == "tcg":
        _text(ET.SubElement(features, "tcg"), "tb-cache", str(TRANSLATION_CACHE_MIB), unit="MiB")


def _cpu(domain: ET.Element, spec: DomainSpec) -> None:
    if spec.accelerator == "kvm":
        cpu = ET.SubElement(domain, "cpu", mode="host-passthrough", migratable="on")
    else:
        cpu = ET.SubElement(domain, "cpu", mode="maximum")
        for name in COSTLY_FEATURES:
            ET.SubElement(cpu, "feature", policy="disable", name=name)
    ET.SubElement(cpu, "topology", sockets="1", cores=str(spec.machine_spec.cpus), threads="1")


def _devices(domain: ET.Element, spec: DomainSpec) -> None:
    devices = ET.SubElement(domain, "devices")
    # cache=unsafe: a build machine does not survive a crash of this host anyway, and the captured image is synced
    driver = {"name": "qemu", "type": "qcow2", "cache": "unsafe", "discard": "unmap", "detect_zeroes": "unmap"}
    _disk(devices, spec.disk, "vda", driver)
    if spec.seed:
        _disk(devices, spec.seed, "vdb", {"name": "qemu", "type": "raw"}, read_only=True)
    ET.SubElement(devices, "controller", type="usb", model="none")
    serial = ET.SubElement(devices, "serial", type="pty")
    if spec.console_log:
        ET.SubElement(serial, "log", file=str(spec.console_log), append="off")
    ET.SubElement(serial, "target", type="isa-serial", port="0")
    rng = ET.SubElement(devices, "rng", model="virtio")
    _text(rng, "backend", "/dev/urandom", model="random")
    ET.SubElement(devices, "memballoon", model="none")
    ET.SubElement(ET.SubElement(devices, "video"), "model", type="none")


def _disk(devices: ET.Element, path: Path, target: str, driver: Mapping[str, str], *, read_only: bool = False) -> None:
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(disk, "driver", dict(driver))
    ET.SubElement(disk, "source", file=str(path))
    ET.SubElement(disk, "target", dev=target, bus="virtio")
    if read_only:
        ET.SubElement(disk, "readonly")


def _user_network(domain: ET.Element, network_policy: NetworkPolicy) -> None:
    commandline = ET.SubElement(domain, f"{{{QEMU_NAMESPACE}}}commandline")
    for argument in arguments(network_policy):
        ET.SubElement(commandline, f"{{{QEMU_NAMESPACE}}}arg", value=argument)
        if argument == SANDBOX:
            capabilities = ET.SubElement(domain, f"{{{QEMU_NAMESPACE}}}capabilities")
            ET.SubElement(capabilities, f"{{{QEMU_NAMESPACE}}}del", capability=SANDBOX_CAPABILITY)


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = text
    return element
