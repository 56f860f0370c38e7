"""Package lists of file trees: every form of database, those that cannot be read, and how records hold a list."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from baker.artifacts.codecs import pack_json, pack_packages, read_json, read_packages
from baker.core.model import Package, PackageList
from baker.disks.packages import apk, dpkg, rpm
from baker.disks.packages.installed import disk_packages
from baker.disks.packages.unreadable import UnreadableDatabase
from tests.support.disks import APK, RPM_HEADER, disk_of, rpm_database, write_tree

ROOT = {"etc/x": "", "usr/bin/sh": ""}
DPKG = """Package: libgcc-s1
Status: install ok installed
Architecture: amd64
Source: gcc-12 (12.2.0-14)
Version: 12.2.0-14+deb12u1
"""


def found_in(tmp_path: Path, files: dict[str, str]) -> PackageList:
    return disk_packages(disk_of(write_tree(tmp_path / "tree", ROOT | files), tmp_path / "fs"))


@pytest.mark.parametrize("directory", ["var/lib/rpm", "usr/lib/sysimage/rpm"])
def test_an_rpm_tree_has_packages(tmp_path: Path, directory: str) -> None:
    rpm_database(tmp_path / "tree" / directory / "rpmdb.sqlite", RPM_HEADER)
    found = found_in(tmp_path, {f"{directory}/Packages": "left from a migration"})
    assert found == PackageList((Package("demo-tool", "2:1.4-3.fc41", "noarch", "rpm"),))
    assert (found.packages[0].source, found.packages[0].licence) == ("demo-tool-1.4-3.fc41.src.rpm", "MIT AND BSD-3-Clause")


def test_the_source_and_the_licence_of_a_package(tmp_path: Path) -> None:
    found = found_in(tmp_path, {"var/lib/dpkg/status": DPKG, "lib/apk/db/installed": APK})
    assert {package.name: (package.source, package.licence) for package in found.packages} == {
        "libgcc-s1": ("gcc-12", ""),
        "busybox": ("", "GPL-2.0-only"),
        "musl": ("musl", "MIT"),
    }


@pytest.mark.parametrize(
    "path, content",
    [
        ("var/lib/rpm/rpmdb.sqlite", "not a database"),
        ("var/lib/rpm/rpmdb.sqlite", ""),
        ("var/lib/rpm/Packages", "\0"),
        ("usr/lib/sysimage/rpm/Packages.db", "RpmP"),
        ("var/lib/dpkg/status", "\0\0\0\0"),
        ("var/lib/dpkg/status.d/base", "\0\0\0\0"),
        ("lib/apk/db/installed", "not a database"),
        ("var/lib/pacman/local/ALPM_DB_VERSION", "9"),
        ("var/db/pkg/sys-apps/baselayout-2/PF", "baselayout-2"),
        ("var/db/xbps/pkgdb-0.38.plist", "<plist/>"),
    ],
)
def test_a_database_that_cannot_be_read_is_reported(tmp_path: Path, path: str, content: str) -> None:
    found = found_in(tmp_path, {path: content})
    assert found.packages == () and not found.complete
    (reason,) = found.unread
    assert reason.startswith(("/" + path + " ", "/" + path.split("/ALPM", maxsplit=1)[0] + " ", "/var/db/"))


def test_one_unreadable_database_hides_no_packages_of_another(tmp_path: Path) -> None:
    found = found_in(tmp_path, {"var/lib/dpkg/status": DPKG, "var/lib/rpm/rpmdb.sqlite": "not a database"})
    assert [package.name for package in found.packages] == ["libgcc-s1"] and not found.complete


def test_a_tree_without_databases_has_no_packages(tmp_path: Path) -> None:
    assert found_in(tmp_path, {"var/lib/dpkg/status": ""}) == PackageList()


HEADERS = [b"", RPM_HEADER[:40], RPM_HEADER[:-20], b"\xff" * 64, RPM_HEADER[:4] + b"\x7f" + RPM_HEADER[5:]]


@pytest.mark.parametrize("header", HEADERS)
def test_a_damaged_header_is_told(header: bytes) -> None:
    with pytest.raises(UnreadableDatabase):
        rpm.package(header)


def test_a_package_without_an_epoch_has_epoch_0() -> None:
    epoch = (1003).to_bytes(4, "big")
    assert RPM_HEADER.count(epoch) == 1
    assert rpm.package(RPM_HEADER.replace(epoch, (999).to_bytes(4, "big"))).version == "0:1.4-3.fc41"


@pytest.mark.parametrize("read", [dpkg.packages, apk.packages])
@pytest.mark.parametrize("blank", [b"", b"\n\n"])
def test_an_empty_database_has_no_packages(read: type[list[Package]], blank: bytes) -> None:
    assert list(read(blank)) == []  # type: ignore[arg-type]


def test_installed_packages_of_a_dpkg_status() -> None:
    status = (
        b"Package: b\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2-3\nDescription: x\n more: of it\n\n"
        b"Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n"
        b"Package: a\nStatus: install ok installed\nVersion: 0.1\nArchitecture: all\n"
    )
    assert [(package.name, package.version, package.architecture) for package in dpkg.packages(status)] == [
        ("b", "1:2-3", "amd64"),
        ("a", "0.1", "all"),
    ]


# --- evidence ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "found",
    [
        PackageList((Package("a", "2", "amd64"), Package("b", "1", "", "apk"))),
        PackageList((Package("a", "2", "amd64"),), ("/var/lib/rpm/Packages is not read",)),
        PackageList((), ("/var/lib/rpm/Packages is not read",)),
        PackageList(),
    ],
    ids=["complete", "not complete", "unknown", "empty"],
)
def test_a_list_comes_back_from_its_record(found: PackageList) -> None:
    assert read_packages(io.BytesIO(pack_packages(found))) == found


def test_records_have_the_form_of_before() -> None:
    packages = (Package("b", "1", source="b-src"), Package("a", "2", "amd64", licence="MIT"))
    blob = pack_packages(PackageList(packages))
    old = [
        {"name": "a", "version": "2", "architecture": "amd64", "kind": "deb"},
        {"name": "b", "version": "1", "architecture": "", "kind": "deb"},
    ]
    assert json.loads(json.dumps(read_json(io.BytesIO(blob)))) == old and blob == pack_json(old)
    assert read_packages(io.BytesIO(pack_json(old))) == PackageList((packages[1], packages[0]))


def test_an_empty_list_of_an_old_record_is_not_known_to_be_complete() -> None:
    found = read_packages(io.BytesIO(pack_json([])))
    assert found.packages == () and not found.complete
