"""The packages that a file tree's own package databases list: the one reader that inspection, comparisons and bills of materials share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from baker.core.model import Disk, Package, PackageList
from baker.disks.packages import apk, dpkg, rpm
from baker.disks.packages.unreadable import UnreadableDatabase
from baker.disks.rootfs import Root, open_root

DPKG_STATUS = "/var/lib/dpkg/status"
DPKG_STATUS_D = "/var/lib/dpkg/status.d"
APK_INSTALLED = ("/lib/apk/db/installed", "/usr/lib/apk/db/installed")
RPM_DIRECTORIES = ("/var/lib/rpm", "/usr/lib/sysimage/rpm")
OTHER_DATABASES = {  # directory -> package manager: pacman(8), "dbpath"; portage(5), "/var/db/pkg"; xbps-query(1), "FILES"
    "/var/lib/pacman/local": "pacman",
    "/var/db/pkg": "portage",
    "/var/db/xbps": "xbps",
}
LARGEST = 1 << 30  # bytes of a database that are read


def disk_packages(disk: Disk, *, scratch: Path | None = None) -> PackageList:
    """The packages that are installed on a disk. UnsupportedFilesystem when bake cannot read it."""
    with open_root(disk, scratch=scratch) as root:
        return installed_packages(root)


def installed_packages(root: Root) -> PackageList:
    """The packages that are installed in a tree, of all package managers, and which databases could not be read. A tree without any
    database has a complete list without packages."""
    found: set[Package] = set()
    unread: list[str] = []
    for path, packages in _databases(root):
        try:
            found.update(packages)
        except UnreadableDatabase as error:
            unread.append(f"{path} cannot be read: {error}")
    unread += _other_databases(root)
    return PackageList(tuple(sorted(found, key=lambda package: (package.name, package.architecture, package.version))), tuple(unread))


def _databases(root: Root) -> Iterator[tuple[str, Iterable[Package]]]:
    """Every database in the tree: its path, and its packages, which are read when they are iterated."""
    if (status := root.read(DPKG_STATUS, limit=LARGEST)) is not None:
        yield DPKG_STATUS, dpkg.packages(status)
    for name in root.names(DPKG_STATUS_D):
        if not name.endswith(".md5sums"):
            path = f"{DPKG_STATUS_D}/{name}"
            yield path, dpkg.packages(root.read(path) or b"", has_status=False)
    for path in APK_INSTALLED:
        if (data := root.read(path, limit=LARGEST)) is not None:
            yield path, apk.packages(data)
    for directory in RPM_DIRECTORIES:
        path = f"{directory}/{rpm.SQLITE}"
        if (database := root.read(path, limit=LARGEST)) is not None:
            yield path, rpm.packages(database, root.read(f"{path}-wal", limit=LARGEST) or b"")


def _other_databases(root: Root) -> Iterator[str]:
    """Remarks on databases in forms that bake does not read. Files of older forms beside RPM's SQLite file are left from a migration."""
    for directory in RPM_DIRECTORIES:
        names = root.names(directory)
        for name, form in rpm.OTHER_FORMS.items():
            if name in names and rpm.SQLITE not in names:
                yield f"{directory}/{name} is not read: it is an RPM database of the form {form}, and bake reads those of SQLite only"
    for directory, manager in OTHER_DATABASES.items():
        if root.names(directory):
            yield f"{directory} is not read: it is the database of {manager}, and bake reads those of dpkg, apk and rpm only"
