"""The domain XML for each shape of machine."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from baker.core.model import MachineSpec, NetworkPolicy
from baker.machines.libvirt.domain import QEMU_NAMESPACE, DomainSpec, RestoredFiles, domain_xml, with_files

SPEC = DomainSpec("bake-1-build", "0b0e6a3a-0000-4000-8000-000000000001", MachineSpec(cpus=3, memory=1 << 30), "tcg", Path("/s/disk.qcow2"))


def parse(spec: DomainSpec) -> ET.Element:
    return ET.fromstring(domain_xml(spec))


def arguments(domain: ET.Element) -> list[str]:
    return [arg.attrib["value"] for arg in domain.iter(f"{{{QEMU_NAMESPACE}}}arg")]


def test_cpus_memory_and_machine_type() -> None:
    domain = parse(replace(SPEC, machine_spec=MachineSpec(cpus=3, memory=768 << 20, machine_type="pc")))
    memory, os_type = domain.find("memory"), domain.find("os/type")
    assert memory is not None and (memory.text, memory.get("unit")) == (str(768 << 20), "bytes")
    assert domain.findtext("vcpu") == "3"
    assert os_type is not None and os_type.get("machine") == "pc"


@pytest.mark.parametrize(("accelerator", "kind", "cpu"), [("tcg", "qemu", "maximum"), ("kvm", "kvm", "host-passthrough")])
def test_the_accelerator_decides_domain_type_and_cpu(accelerator: str, kind: str, cpu: str) -> None:
    domain = parse(replace(SPEC, accelerator=accelerator))  # type: ignore[arg-type]
    model = domain.find("cpu")
    assert domain.get("type") == kind
    assert model is not None and model.get("mode") == cpu
    assert (domain.find("features/tcg") is not None) == (accelerator == "tcg")


def test_the_clock_is_the_hosts_or_begins_when_it_is_told_to() -> None:
    assert parse(SPEC).find("clock").attrib == {"offset": "utc"}  # type: ignore[union-attr]
    assert parse(replace(SPEC, clock=1_700_000_000)).find("clock").attrib == {"offset": "absolute", "start": "1700000000"}  # type: ignore[union-attr]


def test_freed_blocks_reach_the_overlay() -> None:
    driver = parse(SPEC).find("devices/disk/driver")
    assert driver is not None
    assert (driver.get("type"), driver.get("discard"), driver.get("detect_zeroes")) == ("qcow2", "unmap", "unmap")


def test_private_keys_are_named_as_files_only() -> None:
    spec = replace(SPEC, credentials={"bake.ssh_host_ed25519_key": Path("/s/key.credential")}, seed=Path("/s/seed.img"))
    domain = parse(spec)
    entry = domain.find("sysinfo[@type='fwcfg']/entry")
    assert entry is not None
    assert entry.attrib == {"name": "opt/io.systemd.credentials/bake.ssh_host_ed25519_key", "file": "/s/key.credential"}
    assert not (entry.text or "").strip()
    seed = domain.findall("devices/disk")[1]
    assert seed.find("readonly") is not None and seed.find("source").get("file") == "/s/seed.img"  # type: ignore[union-attr]


def test_uefi_has_its_own_variables() -> None:
    domain = parse(replace(SPEC, loader=Path("/usr/share/OVMF/CODE.fd"), nvram=Path("/s/nvram.fd")))
    loader = domain.find("os/loader")
    assert loader is not None and (loader.text, loader.get("type"), loader.get("readonly")) == ("/usr/share/OVMF/CODE.fd", "pflash", "yes")
    assert domain.findtext("os/nvram") == "/s/nvram.fd"
    assert parse(SPEC).find("os/loader") is None


def test_nothing_listens_before_a_forward_is_asked_for() -> None:
    domain = parse(SPEC)
    assert not any("hostfwd" in argument for argument in arguments(domain))
    assert "user,id=bake" in arguments(domain)
    assert domain.find("devices/graphics") is None and domain.find("devices/interface") is None


def test_names_and_paths_are_escaped() -> None:
    odd = Path("/s/a & b <'\">/disk.qcow2")
    spec = replace(SPEC, name="a<b>&c", disk=odd, console_log=odd)
    domain = parse(spec)
    assert domain.findtext("name") == "a<b>&c"
    assert domain.find("devices/disk/source").get("file") == str(odd)  # type: ignore[union-attr]
    assert domain.find("devices/serial/log").get("file") == str(odd)  # type: ignore[union-attr]


def test_a_guest_that_powers_off_is_gone_and_one_that_reboots_is_not() -> None:
    domain = parse(SPEC)
    assert [domain.findtext(event) for event in ("on_poweroff", "on_reboot", "on_crash")] == ["destroy", "restart", "destroy"]


def test_a_closed_network_lets_nothing_out_but_what_its_proxy_forwards() -> None:
    domain = parse(replace(SPEC, network_policy=NetworkPolicy("closed", 4321)))
    found = arguments(domain)
    netdev = found[found.index("-netdev") + 1]
    assert netdev.startswith("user,id=bake,restrict=on,guestfwd=tcp:10.0.2.100:3128-cmd:")
    assert netdev.endswith(" 4321")
    assert "spawn=deny" not in found[found.index("-sandbox") + 1], "QEMU starts the program that forwards"
    assert [each.attrib["capability"] for each in domain.iter(f"{{{QEMU_NAMESPACE}}}del")] == ["seccomp-sandbox"]


def test_a_closed_network_without_a_proxy_lets_nothing_out() -> None:
    found = arguments(parse(replace(SPEC, network_policy=NetworkPolicy("closed"))))
    assert found[found.index("-netdev") + 1] == "user,id=bake,restrict=on"
    assert "-sandbox" not in found


def test_an_open_network_keeps_the_filter_of_libvirt() -> None:
    domain = parse(SPEC)
    assert "-sandbox" not in arguments(domain)
    assert not list(domain.iter(f"{{{QEMU_NAMESPACE}}}del"))


def test_packets_are_noted_where_that_is_asked_for() -> None:
    found = arguments(parse(replace(SPEC, network_policy=NetworkPolicy("report", 4321, Path("/s/a,b.pcap")))))
    assert found[found.index("-object") + 1] == "filter-dump,id=bake-packets,netdev=bake,file=/s/a,,b.pcap,maxlen=512"


def test_a_kept_machine_gets_the_network_of_its_new_build() -> None:
    kept = domain_xml(replace(SPEC, seed=Path("/s/seed.img"), network_policy=NetworkPolicy("closed", 1111)))
    files = RestoredFiles(Path("/t/disk.qcow2"), Path("/t/seed.img"), Path("/t/log"), {}, network_policy=NetworkPolicy("closed", 2222))
    found = arguments(ET.fromstring(with_files(kept, files)))
    netdevs = [found[at + 1] for at, name in enumerate(found) if name == "-netdev"]
    assert len(netdevs) == 1
    assert netdevs[0].endswith(" 2222")
