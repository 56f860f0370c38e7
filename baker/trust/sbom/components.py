"""The software in a file tree, read offline: packages of dpkg, rpm and apk, of Python (*.dist-info) and Node.js (node_modules)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from typing import Any

from packageurl import PackageURL

from baker.core.model import Package
from baker.disks.packages.installed import installed_packages
from baker.disks.rootfs import Root

OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")
OF_LANGUAGES = re.compile(r".*/[^/]+\.dist-info/METADATA|.*/node_modules/(?:@[^/]+/)?[^/]+/package\.json", re.DOTALL)


@dataclass(frozen=True, order=True)
class Component:
    """One package. `kind` is its purl's type: deb, rpm, apk, pypi, npm. `path` is where it is installed, for kinds that may be installed
    more than once, else empty."""

    kind: str
    name: str
    version: str
    purl: str
    path: str = ""
    licence: str = ""  # as the package's author wrote it; "" where that is not known


@dataclass(frozen=True)
class Distribution:
    """ID and VERSION_ID of os-release(5): "debian", "12"."""

    id: str = ""
    version: str = ""

    @property
    def text(self) -> str:
        return f"{self.id}-{self.version}" if self.version else self.id


def components(root: Root) -> tuple[list[Component], list[str]]:
    """The components of a tree, sorted, and remarks on what could not be read."""
    system, installed = distribution(root), installed_packages(root)
    found = {_of_system(package, system) for package in installed.packages}
    for path in _paths(root):
        component = _python(root, path) if path.endswith("METADATA") else _node(root, path)
        if component:
            found.add(component)
    return sorted(found), list(installed.unread)


def distribution(root: Root) -> Distribution:
    """The distribution that a tree's os-release names; an empty one where there is no such file."""
    for path in OS_RELEASE:
        data = root.read(path)
        if data:
            lines = (line.partition("=") for line in data.decode("utf-8", "replace").splitlines())
            values = {name.strip(): value.strip().strip("\"'") for name, equals, value in lines if equals}
            return Distribution(values.get("ID", ""), values.get("VERSION_ID", ""))
    return Distribution()


def _paths(root: Root) -> Iterator[str]:
    for found in root.walk():
        if found.inode.is_file and OF_LANGUAGES.fullmatch(found.path):
            yield found.path


def _of_system(package: Package, system: Distribution) -> Component:
    """A package with its purl as the purl specification's types deb, rpm and apk have it: the vendor is the namespace, and the epoch of an
    RPM is a qualifier. Licences of Debian's packages are free texts (/usr/share/doc/*/copyright) and left out."""
    epoch, _, version = package.version.rpartition(":") if package.kind == "rpm" else ("", "", package.version)
    namespace = system.id or {"deb": "debian", "apk": "alpine"}.get(package.kind, "")
    qualifiers = {
        "arch": package.architecture,
        "distro": system.text,
        "epoch": epoch if epoch != "0" else "",
        "upstream": package.source if package.kind != "apk" and package.source != package.name else "",
    }
    known = {key: value for key, value in qualifiers.items() if value}
    purl = PackageURL(package.kind, namespace or None, package.name, version or None, known).to_string()
    return Component(package.kind, package.name, version, purl, licence=package.licence.strip())


# --- packages of languages ---------------------------------------------------------------------------------------------


def _python(root: Root, path: str) -> Component | None:
    """A distribution's METADATA: headers like those of a mail (PyPA, "Core metadata specifications"). None without name or version."""
    fields = HeaderParser().parsestr((root.read(path) or b"").decode("utf-8", "replace"))
    name, version = fields.get("Name"), fields.get("Version")
    if not name or not version:
        return None
    licence = fields.get("License-Expression") or fields.get("License") or ""
    licence = licence if "\n" not in licence and licence != "UNKNOWN" else ""  # some packages have the licence's whole text there
    normal = re.sub(r"[-_.]+", "-", name).lower()
    return Component("pypi", name, version, PackageURL("pypi", None, normal, version).to_string(), path, licence.strip())


def _node(root: Root, path: str) -> Component | None:
    """A module's package.json (npm). None without name or version: then it is another file of that name."""
    try:
        value: Any = json.loads(root.read(path) or b"")
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
