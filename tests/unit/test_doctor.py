"""What `bake doctor` finds on hosts of all kinds, and what it says to type."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from baker.catalog.catalog import Catalog
from baker.core.home import Home, ensure
from baker.core.ledger import Ledger
from baker.core.process import Result
from baker.upkeep.doctor import TOOLS, Finding, Host, findings


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host of an ordinary user with every tool and no /dev/kvm."""
    root = tmp_path / "root"
    for directory in ("proc/sys/user", "usr/lib/grub/i386-pc", "usr/lib/grub/x86_64-efi", "usr/share/OVMF"):
        (root / directory).mkdir(parents=True)
    (root / "usr/share/OVMF/OVMF_CODE.fd").touch()
    (root / "proc/meminfo").write_text("MemTotal: 8000000 kB\nMemAvailable: 4000000 kB\n")
    home = Home.from_environment({"BAKE_HOME": str(tmp_path / "home")})
    return Host(home, {}, uid=1000, which=lambda tool: f"/usr/bin/{tool}", run=answering(0, "version 1.2.3"), root=root)


def answering(code: int, text: str) -> Any:
    """A `process.run` whose every command ends like this."""

    def run(argv: Sequence[str | Path], **options: Any) -> Result:
        return Result(tuple(map(str, argv)), code, text if code == 0 else "", "" if code == 0 else text, 0.0)

    return run


def finding(host: Host, name: str, **changes: Any) -> Finding:
    found = [one for one in findings(dataclasses.replace(host, **changes)) if one.name == name]
    assert len(found) == 1, name
    return found[0]


@pytest.mark.parametrize("tool", TOOLS)
def test_a_missing_tool_is_named_with_its_package(host: Host, tool: str) -> None:
    found = finding(host, tool, which=lambda name: None if name == tool else f"/usr/bin/{name}")
    package, required, _ = TOOLS[tool]
    assert (found.ok, found.required) == (False, required)
    assert package in found.fix
    assert finding(host, tool).ok


def test_root_needs_no_sudo(host: Host) -> None:
    assert finding(host, "qemu-img", which=lambda name: None).fix == "sudo apt-get install -y qemu-utils"
    assert finding(host, "qemu-img", which=lambda name: None, uid=0).fix == "apt-get install -y qemu-utils"


def test_a_libvirt_that_does_not_open_is_required_and_says_why(host: Host) -> None:
    found = finding(host, "libvirt driver", run=answering(1, "Traceback\nlibvirt.libvirtError: no connection driver available"))
    assert (found.ok, found.required) == (False, True)
    assert "no connection driver available" in found.found
    assert "libvirt-daemon-driver-qemu" in found.fix


def test_a_missing_binding_is_installed_with_pip(host: Host) -> None:
    found = finding(host, "libvirt driver", run=answering(1, "ModuleNotFoundError: No module named 'libvirt'"))
    assert "-m pip install libvirt-python" in found.fix


def test_no_kvm_is_only_advice(host: Host) -> None:
    found = finding(host, "/dev/kvm")
    assert (found.ok, found.required) == (False, False)
    assert "TCG" in found.found


@pytest.mark.parametrize(("directory", "package"), [("i386-pc", "grub-pc-bin"), ("x86_64-efi", "grub-efi-amd64-bin")])
def test_missing_grub_modules(host: Host, directory: str, package: str) -> None:
    (host.root / "usr/lib/grub" / directory).rmdir()
    found = finding(host, f"grub {directory}")
    assert not found.ok
    assert package in found.fix


def test_missing_uefi_firmware(host: Host) -> None:
    assert finding(host, "UEFI firmware").ok
    (host.root / "usr/share/OVMF/OVMF_CODE.fd").unlink()
    assert finding(host, "UEFI firmware").fix == "sudo apt-get install -y ovmf"


def test_forbidden_user_namespaces(host: Host) -> None:
    (host.root / "proc/sys/user/max_user_namespaces").write_text("0\n")
    found = finding(host, "user namespaces")
    assert not found.ok
    assert found.fix == "sudo sysctl -w user.max_user_namespaces=15000"
    assert "user namespaces" not in {one.name for one in findings(dataclasses.replace(host, uid=0))}


@pytest.mark.parametrize(("kilobytes", "ok", "required"), [(4_000_000, True, False), (1_000_000, False, False), (300_000, False, True)])
def test_memory(host: Host, kilobytes: int, ok: bool, required: bool) -> None:
    (host.root / "proc/meminfo").write_text(f"MemAvailable: {kilobytes} kB\n")
    found = finding(host, "memory")
    assert (found.ok, found.required) == (ok, required)


def test_a_store_that_is_a_file(host: Host) -> None:
    ensure(host.home.data.parent)
    host.home.data.write_text("in the way")
    found = finding(host, "store")
    assert (found.ok, found.required) == (False, True)
    assert "BAKE_HOME" in found.fix


def test_a_whole_catalog(host: Host) -> None:
    assert "empty" in finding(host, "catalog").found
    catalog = Catalog(host.home.catalog)
    catalog.images()
    catalog.close()
    found = finding(host, "catalog")
    assert found.ok
    assert "schema" in found.found


def test_a_damaged_catalog(host: Host) -> None:
    ensure(host.home.data)
    host.home.catalog.write_bytes(b"this was a database once " * 200)
    found = finding(host, "catalog")
    assert (found.ok, found.required) == (False, True)
    assert found.fix.startswith(f"mv {host.home.catalog} ")


def test_a_catalog_of_a_later_bake(host: Host) -> None:
    catalog = Catalog(host.home.catalog)
    catalog.images()
    catalog.close()
    with sqlite3.connect(host.home.catalog) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    found = finding(host, "catalog")
    assert not found.ok
    assert "9999 is newer" in found.found


def test_leftovers_are_told_apart_from_what_was_kept(host: Host) -> None:
    assert finding(host, "leftovers").ok
    with Ledger(host.home.ledger).open("aaa111") as killed:
        killed.enter("directory", path="/x")
    with Ledger(host.home.ledger).open("bbb222") as kept:
        kept.enter("directory", path="/y")
        kept.keep("for a look")
    left, held = finding(host, "leftovers"), finding(host, "kept machines")
    assert ("aaa111" in left.found, left.fix) == (True, "bake sweep")
    assert ("bbb222" in held.found, held.fix) == (True, "bake sweep --kept")


def test_a_check_that_cannot_be_made_is_a_finding(host: Host) -> None:
    def broken(argv: Sequence[str | Path], **options: Any) -> Result:
        raise OSError(24, "Too many open files")

    found = finding(host, "libvirt driver", run=broken)
    assert not found.ok
    assert "Too many open files" in found.found


def test_every_finding_that_is_not_ok_says_what_to_type(host: Host) -> None:
    bare = dataclasses.replace(host, which=lambda tool: None, run=answering(1, "broken"), root=host.root / "nothing")
    wrong = [one for one in findings(bare) if not one.ok]
    assert len(wrong) > len(TOOLS)
    assert all(one.fix for one in wrong)
