"""The software in a file tree, read offline: packages of dpkg, rpm and apk, of Python (*.dist-info) and Node.js (node_modules)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from typing import Any, Protocol

from packageurl import PackageURL

from baker.disks import rpmdb
from baker.disks.packages import APK_INSTALLED, DPKG_STATUS, DPKG_STATUS_D, RPM_DIRECTORIES
from baker.disks.rootfs import Found

OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")
RPM_DATABASE = "rpmdb.sqlite"
LARGEST_DATABASE = 1 << 30
OF_LANGUAGES = re.compile(r".*/[^/]+\.dist-info/METADATA|.*/node_modules/(?:@[^/]+/)?[^/]+/package\.json", re.DOTALL)


class Tree(Protocol):
    """The part of baker.disks.rootfs.Root that is read."""

    def read(self, path: str, *, limit: int = ...) -> bytes | None: ...
    def names(self, path: str) -> list[str]: ...
    def walk(self) -> Iterator[Found]: ...


@dataclass(frozen=True, order=True)
class Component:
    """One package. `kind` is its purl's type: deb, rpm, apk, pypi, npm; `path` where it lies, for those that may be there twice."""

    kind: str
    name: str
    version: str
    purl: str
    path: str = ""
    licence: str = ""  # as its author wrote it


@dataclass(frozen=True)
class Distribution:
    """What os-release(5) says: "debian", "12"."""

    id: str = ""
    version: str = ""

    @property
    def text(self) -> str:
        return f"{self.id}-{self.version}" if self.version else self.id


def components(tree: Tree) -> tuple[list[Component], list[str]]:
    """Everything found, sorted, and remarks on what could not be read."""
    system, notes = distribution(tree), []
    found = {*_dpkg(tree, system), *_apk(tree, system)}
    for directory in RPM_DIRECTORIES:
        try:
            found |= set(_rpm(tree, directory, system))
        except rpmdb.DamagedError as error:
            notes.append(f"{directory}/{RPM_DATABASE} cannot be read: {error}")
        if any(name in ("Packages", "Packages.db") for name in tree.names(directory)) and RPM_DATABASE not in tree.names(directory):
            notes.append(f"the RPM database in {directory} is of an older kind (not SQLite) and is not read")
    for path in _paths(tree):
        component = _python(tree, path) if path.endswith("METADATA") else _node(tree, path)
        if component:
            found.add(component)
    return sorted(found), notes


def distribution(tree: Tree) -> Distribution:
    for path in OS_RELEASE:
        data = tree.read(path)
        if data:
            lines = (line.partition("=") for line in data.decode("utf-8", "replace").splitlines())
            values = {name.strip(): value.strip().strip("\"'") for name, equals, value in lines if equals}
            return Distribution(values.get("ID", ""), values.get("VERSION_ID", ""))
    return Distribution()


def _paths(tree: Tree) -> Iterator[str]:
    for found in tree.walk():
        if found.inode.is_file and OF_LANGUAGES.fullmatch(found.path):
            yield found.path


# --- packages of the system --------------------------------------------------------------------------------------------


def _dpkg(tree: Tree, system: Distribution) -> Iterator[Component]:
    """deb822 paragraphs; see baker.disks.packages. Licences are in free texts (/usr/share/doc/*/copyright) and left out."""
    texts = [(tree.read(DPKG_STATUS, limit=LARGEST_DATABASE) or b"", True)]
    for name in tree.names(DPKG_STATUS_D):
        if not name.endswith(".md5sums"):
            texts.append((tree.read(f"{DPKG_STATUS_D}/{name}") or b"", False))
    for data, whole in texts:
        for paragraph in data.decode("utf-8", "replace").split("\n\n"):
            lines = (line.partition(":") for line in paragraph.splitlines() if not line.startswith((" ", "\t")))
            fields = {name: value.strip() for name, colon, value in lines if colon}
            state = fields.get("Status", "" if whole else "installed").rpartition(" ")[2]
            if state == "installed" and "Package" in fields:
                source = fields.get("Source", "").partition(" ")[0]
                upstream = {"upstream": source} if source and source != fields["Package"] else {}
                version = fields.get("Version", "")
                yield _of_system("deb", fields["Package"], version, {"arch": fields.get("Architecture", ""), **upstream}, system)


def _apk(tree: Tree, system: Distribution) -> Iterator[Component]:
    """Paragraphs of one-letter fields: P name, V version, A architecture, L licence, o origin (Alpine's "Apk spec")."""
    for path in APK_INSTALLED:
        for paragraph in (tree.read(path, limit=LARGEST_DATABASE) or b"").decode("utf-8", "replace").split("\n\n"):
            fields = dict(line.split(":", 1) for line in paragraph.splitlines() if line[1:2] == ":")
            if "P" in fields:
                yield _of_system(
                    "apk", fields["P"], fields.get("V", ""), {"arch": fields.get("A", "")}, system, licence=fields.get("L", "")
                )


def _rpm(tree: Tree, directory: str, system: Distribution) -> Iterator[Component]:
    data = tree.read(f"{directory}/{RPM_DATABASE}", limit=LARGEST_DATABASE)
    if not data:
        return
    for each in rpmdb.packages(data, tree.read(f"{directory}/{RPM_DATABASE}-wal", limit=LARGEST_DATABASE) or b""):
        qualifiers = {"arch": each.architecture, "epoch": str(each.epoch) if each.epoch else "", "upstream": each.source}
        yield _of_system("rpm", each.name, f"{each.version}-{each.release}", qualifiers, system, licence=each.licence)


def _of_system(kind: str, name: str, version: str, qualifiers: dict[str, str], system: Distribution, *, licence: str = "") -> Component:
    """A purl as the purl specification's types deb, rpm and apk say: the vendor is the namespace."""
    namespace = system.id or {"deb": "debian", "apk": "alpine"}.get(kind, "")
    told = {key: value for key, value in {**qualifiers, "distro": system.text}.items() if value}
    purl = PackageURL(kind, namespace or None, name, version or None, told).to_string()
    return Component(kind, name, version, purl, licence=licence.strip())


# --- packages of languages ---------------------------------------------------------------------------------------------


def _python(tree: Tree, path: str) -> Component | None:
    """Core metadata (PyPA): headers as of a mail."""
    fields = HeaderParser().parsestr((tree.read(path) or b"").decode("utf-8", "replace"))
    name, version = fields.get("Name"), fields.get("Version")
    if not name or not version:
        return None
    licence = fields.get("License-Expression") or fields.get("License") or ""
    licence = licence if "\n" not in licence and licence != "UNKNOWN" else ""  # some have the whole text there
    normal = re.sub(r"[-_.]+", "-", name).lower()
    return Component("pypi", name, version, PackageURL("pypi", None, normal, version).to_string(), path, licence.strip())


def _node(tree: Tree, path: str) -> Component | None:
    """package.json (npm): its name and version; files of a package that only look like one have none."""
    try:
        value: Any = json.loads(tree.read(path) or b"")
    except ValueError:
        return None
    name, version = (value.get("name"), value.get("version")) if isinstance(value, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(version, str) or not name or not version:
        return None
    scope, slash, rest = name.rpartition("/")
    licence = value.get("license", "")
    licence = licence.get("type", "") if isinstance(licence, dict) else licence
    purl = PackageURL("npm", scope if slash else None, rest, version).to_string()
    return Component("npm", name, version, purl, path, licence if isinstance(licence, str) else "")
