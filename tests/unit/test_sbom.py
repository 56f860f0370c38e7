"""Bills of materials: every kind of package database, whose each component is, and documents that the formats' own tools accept."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from baker.catalog.records import ImageRecord
from baker.disks.rootfs import open_root
from baker.trust.sbom.bill import attribute
from baker.trust.sbom.components import Component, components
from tests.support.disks import APK, RPM_HEADER, disk_of, rpm_database, write_tree
from tests.support.fake_app import Cli, a_build, an_image

DEB = """Package: {name}
Status: {state}
Architecture: amd64
Source: {name}-src (1)
Version: {version}
Description: a thing
 Package: not-one

"""


def debian(*packages: tuple[str, str]) -> dict[str, str]:
    status = "".join(DEB.format(name=name, version=version, state="install ok installed") for name, version in packages)
    status += DEB.format(name="gone", version="1", state="deinstall ok config-files")
    return {"etc/os-release": 'ID=debian\nVERSION_ID="13"\n', "usr/bin/sh": "", "var/lib/dpkg/status": status}


LANGUAGES = {
    "usr/lib/python3/dist-packages/PyYAML-6.0.2.dist-info/METADATA": "Name: PyYAML\nVersion: 6.0.2\nLicense: MIT\n\nText",
    "opt/app/lib/python3.13/site-packages/odd.dist-info/METADATA": "Metadata-Version: 2.4\nName: odd\n\nNo version",
    "opt/app/node_modules/@scope/thing/package.json": '{"name": "@scope/thing", "version": "2.0.1", "license": "Our own terms"}',
    "opt/app/node_modules/left-pad/package.json": '{"name": "left-pad", "version": "1.3.0", "license": {"type": "WTFPL"}}',
    "opt/app/node_modules/left-pad/node_modules/left-pad/package.json": '{"name": "left-pad", "version": "1.3.0"}',
    "opt/app/node_modules/left-pad/test/package.json": '{"name": "not-a-module", "version": "1"}',
    "opt/app/node_modules/broken/package.json": "{",
}


def found_in(tree: Path, tmp_path: Path) -> tuple[dict[str, Component], list[str]]:
    with open_root(disk_of(tree, tmp_path / "fs")) as root:
        found, notes = components(root)
    return {component.purl: component for component in found}, notes


def test_packages_of_debian_python_and_node(tmp_path: Path) -> None:
    found, notes = found_in(write_tree(tmp_path / "tree", debian(("nginx", "1.26.3-3+deb13u1")) | LANGUAGES), tmp_path)
    assert list(found) == [
        "pkg:deb/debian/nginx@1.26.3-3%2Bdeb13u1?arch=amd64&distro=debian-13&upstream=nginx-src",
        "pkg:npm/%40scope/thing@2.0.1",
        "pkg:npm/left-pad@1.3.0",
        "pkg:pypi/pyyaml@6.0.2",
    ]
    assert found["pkg:npm/%40scope/thing@2.0.1"].path == "/opt/app/node_modules/@scope/thing/package.json"
    assert found["pkg:pypi/pyyaml@6.0.2"].licence == "MIT"
    assert notes == []


def test_packages_of_alpine(tmp_path: Path) -> None:
    files = {"etc/os-release": "ID=alpine\nVERSION_ID=3.21.2\n", "bin/sh": "", "lib/apk/db/installed": APK}
    found, _ = found_in(write_tree(tmp_path / "tree", files), tmp_path)
    assert {purl: component.licence for purl, component in found.items()} == {
        "pkg:apk/alpine/busybox@1.36.1-r2?arch=x86_64&distro=alpine-3.21.2": "GPL-2.0-only",
        "pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64&distro=alpine-3.21.2": "MIT",
    }


def test_packages_of_an_rpm_database(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"etc/os-release": "ID=fedora\nVERSION_ID=41\n", "usr/bin/sh": ""})
    rpm_database(tree / "usr/lib/sysimage/rpm/rpmdb.sqlite", RPM_HEADER)
    found, notes = found_in(tree, tmp_path)
    (purl,) = found
    assert purl == "pkg:rpm/fedora/demo-tool@1.4-3.fc41?arch=noarch&distro=fedora-41&epoch=2&upstream=demo-tool-1.4-3.fc41.src.rpm"
    assert found[purl].licence == "MIT AND BSD-3-Clause"
    assert notes == []


def test_a_database_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    files = {"etc/x": "", "usr/bin/sh": "", "var/lib/rpm/rpmdb.sqlite": "not a database", "usr/lib/sysimage/rpm/Packages": "old"}
    found, notes = found_in(write_tree(tmp_path / "tree", files), tmp_path)
    assert found == {}
    assert notes[0].startswith("/var/lib/rpm/rpmdb.sqlite cannot be read: ")
    assert notes[1].startswith("/usr/lib/sysimage/rpm/Packages is not read: ") and "Berkeley DB" in notes[1]


def test_a_component_is_whose_it_has_been_all_along() -> None:
    a, b, c, d = (Component("deb", name, "1", f"pkg:deb/{name}@1") for name in "abcd")
    line = [an_image(number=3, parent="x"), an_image(number=2, parent="y"), an_image(number=1)]
    sets = {line[0].id: [a, b, c, d], line[1].id: [a, b], line[2].id: [a, c]}
    assert [level.components for level in attribute(line, sets)] == [(c, d), (b,), (a,)]  # c went, and came back
    assert [level.components for level in attribute(line, {line[0].id: [a]})] == [(a,), (), ()]


# --- documents ---------------------------------------------------------------------------------------------------------


@dataclass
class Shop:
    cli: Cli
    base: ImageRecord
    web: ImageRecord


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """web, on debian-13: nginx and languages on top of libc6; zlib was upgraded."""
    cli = Cli(tmp_path / "home")
    images = []
    contents = (debian(("libc6", "2.41"), ("zlib1g", "1.0")), debian(("libc6", "2.41"), ("zlib1g", "1.1"), ("nginx", "1.26")) | LANGUAGES)
    for number, (name, files) in enumerate(zip(("debian-13", "web"), contents, strict=True), start=1):
        blob = cli.baker.store.add_disk(disk_of(write_tree(tmp_path / name, files), tmp_path / f"{name}.raw"), None)
        parent = images[0].id if images else None
        images.append(replace(an_image(name, "1.4.0", number, parent=parent), chain=(blob,), virtual_size=16 << 20))
        cli.baker.catalog.register(a_build(images[-1]), images[-1])
    return Shop(cli, *images)


def test_cyclonedx_is_valid_and_says_whose_each_component_is(shop: Shop) -> None:
    text = shop.cli("sbom", "web").out
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom = json.loads(text)
    assert bom["metadata"]["component"]["name"] == "web" and bom["metadata"]["timestamp"] == "2026-11-22T20:00:00+00:00"
    assert bom["metadata"]["component"]["hashes"][0]["content"] == shop.web.digest.removeprefix("sha256:")
    own = {each["name"]: each for each in bom["components"]}
    assert set(own) == {"nginx", "zlib1g", "PyYAML", "left-pad", "@scope/thing", "debian-13"}
    assert [each["name"] for each in own["debian-13"]["components"]] == ["libc6"]
    assert own["debian-13"]["components"][0]["properties"] == [{"name": "bake:image", "value": shop.base.id}]
    depends = {each["ref"]: each.get("dependsOn", []) for each in bom["dependencies"]}
    assert f"image:{shop.base.id}" in depends[f"image:{shop.web.id}"]


def test_spdx_is_valid_and_says_whose_each_component_is(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "web.spdx.json"
    assert shop.cli("sbom", "web", "--format", "spdx", "-o", path).code == 0
    assert [message.validation_message for message in validate_full_spdx_document(parse_file(str(path)))] == []
    document: dict[str, Any] = json.loads(path.read_text())
    names = {each["SPDXID"]: each["name"] for each in document["packages"]}
    contains: dict[str, set[str]] = {}
    for each in document["relationships"]:
        if each["relationshipType"] == "CONTAINS":
            contains.setdefault(names[each["spdxElementId"]], set()).add(names[each["relatedSpdxElement"]])
    assert contains == {"debian-13": {"libc6"}, "web": {"nginx", "zlib1g", "PyYAML", "left-pad", "@scope/thing"}}
    licences = {each["name"]: each.get("licenseDeclared") for each in document["packages"] if "licenseComments" not in each}
    assert licences["PyYAML"] == "MIT" and "@scope/thing" not in licences


@pytest.mark.parametrize("format", ["cyclonedx", "spdx"])
def test_a_bill_is_the_same_each_time(shop: Shop, format: str) -> None:  # noqa: A002
    first, second = (shop.cli("sbom", "web", "--format", format).out for _ in range(2))
    assert first == second and len(first) > 1000
