"""The packages in apk's database of installed packages: paragraphs of one-letter fields, as "Apk spec" in Alpine's wiki has them.

P is the name, V the version, A the architecture, L the licence, o the origin (the name of the APKBUILD that the package was built from).
"""

from __future__ import annotations

from collections.abc import Iterator

from baker.core.model import Package
from baker.disks.packages.unreadable import UnreadableDatabase


def packages(data: bytes) -> Iterator[Package]:
    """The installed packages. UnreadableDatabase when `data` is not empty and no paragraph of it names a package."""
    named = False
    for paragraph in data.decode("utf-8", "replace").split("\n\n"):
        fields = dict(line.split(":", 1) for line in paragraph.splitlines() if line[1:2] == ":")
        if "P" in fields:
            named = True
            origin, licence = fields.get("o", ""), fields.get("L", "").strip()
            yield Package(fields["P"], fields.get("V", ""), fields.get("A", ""), "apk", origin, licence)
    if data.strip() and not named:
        raise UnreadableDatabase("no paragraph names a package")
