"""The packages that a disk's own package database lists: dpkg (also the status.d of distroless images) and apk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from baker.core.model import Disk, Package
from baker.disks.rootfs import Root, open_root

DPKG_STATUS = "/var/lib/dpkg/status"
DPKG_STATUS_D = "/var/lib/dpkg/status.d"
APK_INSTALLED = ("/lib/apk/db/installed", "/usr/lib/apk/db/installed")
RPM_DIRECTORIES = ("/var/lib/rpm", "/usr/lib/sysimage/rpm")


@dataclass(frozen=True)
class PackageList:
    """What is installed, sorted by name, and remarks on what could not be read."""

    packages: tuple[Package, ...]
    notes: tuple[str, ...] = ()


def installed_packages(disk: Disk, *, scratch: Path | None = None) -> tuple[Package, ...]:
    """The packages that are installed on a disk. UnsupportedFilesystem when bake cannot read it."""
    return package_list(disk, scratch=scratch).packages


def packages_in(root: Root) -> tuple[Package, ...]:
    """The packages that are installed in a tree."""
    found = set(_dpkg(root)) | set(_apk(root))
    return tuple(sorted(found, key=lambda package: (package.name, package.architecture, package.version)))


def package_list(disk: Disk, *, scratch: Path | None = None) -> PackageList:
    """`installed_packages`, with remarks."""
    with open_root(disk, scratch=scratch) as root:
        found = packages_in(root)
        notes = tuple(f"the RPM database in {path} is not read from outside" for path in RPM_DIRECTORIES if _has_rpm(root, path))
    return PackageList(found, notes)


def _has_rpm(root: Root, path: str) -> bool:
    return any(name.startswith(("rpmdb.sqlite", "Packages")) for name in root.names(path))


def _dpkg(root: Root) -> Iterator[Package]:
    """deb822 paragraphs; installed is what has "installed" as the last word of Status (dpkg-query(1)), or no Status (status.d)."""
    yield from _paragraphs(root.read(DPKG_STATUS) or b"", whole=True)
    for name in root.names(DPKG_STATUS_D):
        if not name.endswith(".md5sums"):
            yield from _paragraphs(root.read(f"{DPKG_STATUS_D}/{name}") or b"", whole=False)


def _paragraphs(data: bytes, *, whole: bool) -> Iterator[Package]:
    fields: dict[bytes, str] = {}
    for line in (*data.split(b"\n"), b""):
        if not line:
            state = fields.get(b"Status", "" if whole else "ok installed").rpartition(" ")[2]
            if state == "installed" and b"Package" in fields:
                yield Package(fields[b"Package"], fields.get(b"Version", ""), fields.get(b"Architecture", ""), "deb")
            fields = {}
            continue
        name, colon, value = line.partition(b":")
        if colon and name in (b"Package", b"Status", b"Version", b"Architecture"):
            fields[name] = value.strip().decode("utf-8", "replace")


def _apk(root: Root) -> Iterator[Package]:
    """Paragraphs of one-letter fields: P name, V version, A architecture (Alpine's "Apk spec")."""
    for path in APK_INSTALLED:
        for paragraph in (root.read(path) or b"").decode("utf-8", "replace").split("\n\n"):
            fields = dict(line.split(":", 1) for line in paragraph.splitlines() if line[1:2] == ":")
            if "P" in fields:
                yield Package(fields["P"], fields.get("V", ""), fields.get("A", ""), "apk")
