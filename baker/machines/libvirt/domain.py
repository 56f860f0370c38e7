"""A machine as libvirt's domain XML (https://libvirt.org/formatdomain.html), built element by element."""

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
TRANSLATION_CACHE_MIB = 512  # of TCG: a whole boot's code, so that nothing is translated twice

# Of "maximum", all that TCG can (guests that want x86-64-v3 run), but what makes a boot slower in emulation:
# five levels of page tables, of use to nobody below 64 TiB; and the switch around every copy from and to user space.
COSTLY_FEATURES = ("la57", "smap")

ET.register_namespace("qemu", QEMU_NAMESPACE)


@dataclass(frozen=True)
class DomainSpec:
    """Everything that the XML says. Paths are those of the host that the domain runs on."""

    name: str
    uuid: str
    shape: MachineSpec
    accelerator: Literal["kvm", "tcg"]
    disk: Path  # qcow2
    console_log: Path | None = None
    credentials: Mapping[str, Path] = field(default_factory=dict)
    seed: Path | None = None  # raw, read only
    loader: Path | None = None  # UEFI
    nvram: Path | None = None  # UEFI variables, this machine's own copy; without a loader libvirt makes it
    clock: int | None = None  # seconds since 1970 at its start; None: the host's
    gate: NetworkPolicy = OPEN


def domain_xml(spec: DomainSpec) -> str:
    """The whole domain."""
    domain = ET.Element("domain", type="kvm" if spec.accelerator == "kvm" else "qemu")
    _text(domain, "name", spec.name)
    _text(domain, "uuid", spec.uuid)
    _text(domain, "memory", str(spec.shape.memory), unit="bytes")
    _text(domain, "vcpu", str(spec.shape.cpus))
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
    _user_network(domain, spec.gate)
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode")


def snapshot_xml(memory: Path, overlay: Path) -> str:
    """What keeps a running machine (https://libvirt.org/formatsnapshot.html): its memory goes to a file, its disk on to an overlay."""
    snapshot = ET.Element("domainsnapshot")
    ET.SubElement(snapshot, "memory", snapshot="external", file=str(memory))
    disks = ET.SubElement(snapshot, "disks")
    disk = ET.SubElement(disks, "disk", name="vda", snapshot="external", type="file")
    ET.SubElement(disk, "driver", type="qcow2")
    ET.SubElement(disk, "source", file=str(overlay))
    ET.SubElement(disks, "disk", name="vdb", snapshot="no")
    return ET.tostring(snapshot, encoding="unicode")


@dataclass(frozen=True)
class Places:
    """Where the files of a machine are that goes on elsewhere."""

    disk: Path
    seed: Path
    console_log: Path
    credentials: Mapping[str, Path]
    nvram: Path | None = None
    gate: NetworkPolicy = OPEN


def moved(description: str, places: Places) -> str:
    """The XML of a kept machine with its files at other places; name and UUID stay, as libvirt wants it."""
    domain = ET.fromstring(description)  # noqa: S314 - libvirt's own
    for disk in domain.iterfind("devices/disk"):
        target, source = disk.find("target"), disk.find("source")
        assert target is not None and source is not None
        source.set("file", str(places.disk if target.get("dev") == "vda" else places.seed))
        for backing in disk.findall("backingStore"):
            disk.remove(backing)  # libvirt finds the chain by itself
    for log in domain.iterfind("devices/*/log"):
        log.set("file", str(places.console_log))
    for entry in domain.iterfind("sysinfo/entry"):
        entry.set("file", str(places.credentials[entry.get("name", "").removeprefix(CREDENTIAL_PREFIX)]))
    for name in ("commandline", "capabilities"):
        for old in domain.findall(f"{{{QEMU_NAMESPACE}}}{name}"):
            domain.remove(old)
    _user_network(domain, places.gate)
    nvram = domain.find("os/nvram")
    if nvram is not None and places.nvram:
        nvram.text = str(places.nvram)
    return ET.tostring(domain, encoding="unicode")


def uuid_of(description: str) -> str:
    """The UUID in a machine's XML."""
    found = ET.fromstring(description).findtext("uuid")  # noqa: S314 - libvirt's own
    assert found
    return found


def _credentials(domain: ET.Element, credentials: Mapping[str, Path]) -> None:
    """Files, not values: what stands in the XML stands on QEMU's command line, too."""
    sysinfo = ET.SubElement(domain, "sysinfo", type="fwcfg")
    for name, path in credentials.items():
        ET.SubElement(sysinfo, "entry", name=CREDENTIAL_PREFIX + name, file=str(path))


def _os(domain: ET.Element, spec: DomainSpec) -> None:
    os = ET.SubElement(domain, "os", {"firmware": "efi"} if spec.nvram and not spec.loader else {})
    _text(os, "type", "hvm", arch="x86_64", machine=spec.shape.machine_type)
    if spec.loader:
        _text(os, "loader", str(spec.loader), readonly="yes", type="pflash")
    elif spec.nvram:  # libvirt's choice: one that asks for no signed boot loader
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
    ET.SubElement(cpu, "topology", sockets="1", cores=str(spec.shape.cpus), threads="1")


def _devices(domain: ET.Element, spec: DomainSpec) -> None:
    devices = ET.SubElement(domain, "devices")
    # cache=unsafe: nothing of a build machine survives a crash of this host anyway, and what is captured is synced then
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


def _user_network(domain: ET.Element, gate: NetworkPolicy) -> None:
    commandline = ET.SubElement(domain, f"{{{QEMU_NAMESPACE}}}commandline")
    for argument in arguments(gate):
        ET.SubElement(commandline, f"{{{QEMU_NAMESPACE}}}arg", value=argument)
        if argument == SANDBOX:
            capabilities = ET.SubElement(domain, f"{{{QEMU_NAMESPACE}}}capabilities")
            ET.SubElement(capabilities, f"{{{QEMU_NAMESPACE}}}del", capability=SANDBOX_CAPABILITY)


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = text
    return element
