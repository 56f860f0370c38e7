"""The packages in dpkg's database: paragraphs of fields, as deb822(5) and dpkg(1) describe them.

A package is installed when the last word of its `Status` is "installed" (dpkg-query(1), "Package status"). The files of `status.d`,
which distroless images have in place of `status`, hold a paragraph each and no `Status`.
"""

from __future__ import annotations

from collections.abc import Iterator

from baker.core.model import Package
from baker.disks.packages.unreadable import UnreadableDatabase

FIELDS = frozenset({b"Package", b"Status", b"Version", b"Architecture", b"Source"})


def packages(data: bytes, *, has_status: bool = True) -> Iterator[Package]:
    """The installed packages in `data`; without `has_status` every package counts as installed. UnreadableDatabase when `data` is not
    empty and no paragraph of it names a package."""
    named = False
    for fields in _paragraphs(data):
        name = fields.get(b"Package")
        if name is None:
            continue
        named = True
        status = fields.get(b"Status", "") if has_status else "installed"
        if status.rpartition(" ")[2] == "installed":
            source = fields.get(b"Source", "").partition(" ")[0]  # "gcc-12 (12.2.0-14)" where the source has a version of its own
            yield Package(name, fields.get(b"Version", ""), fields.get(b"Architecture", ""), "deb", source)
    if data.strip() and not named:
        raise UnreadableDatabase("no paragraph names a package")


def _paragraphs(data: bytes) -> Iterator[dict[bytes, str]]:
    """The FIELDS of each paragraph. A line that begins with a space or a tab continues the field above and has no name in FIELDS."""
    fields: dict[bytes, str] = {}
    for line in (*data.split(b"\n"), b""):
        if not line:
            yield fields
            fields = {}
            continue
        name, colon, value = line.partition(b":")
        if colon and name in FIELDS:
            fields[name] = value.strip().decode("utf-8", "replace")
