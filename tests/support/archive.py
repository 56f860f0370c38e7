"""A fake Debian archive: a dictionary of URL -> bytes."""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from baker.core.errors import SourceError

MIRROR = "http://mirror/dists"
INDEX = "main/binary-amd64"


@dataclass
class Archive:
    """Suites with their packages, each as "name version architecture". `asked`: the downloaded paths, relative to the mirror."""

    suites: Mapping[str, Iterable[str]]
    not_automatic: bool = False
    spoilt: bool = False
    asked: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for suite, packages in self.suites.items():
            words = [each.split() for each in packages]
            text = "\n".join(f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\n" for name, version, arch in words)
            packed = lzma.compress(text.encode())
            digest = hashlib.sha256(packed).hexdigest()
            self.files[f"{MIRROR}/{suite}/{INDEX}/by-hash/SHA256/{digest}"] = b"other bytes" if self.spoilt else packed
            release = f"Suite: {suite}\nDate: Sat, 22 Nov 2026 08:00:00 UTC\nAcquire-By-Hash: yes\n"
            release += "NotAutomatic: yes\n" if self.not_automatic else ""
            release += f"SHA256:\n {digest} {len(packed)} {INDEX}/Packages.xz\n"
            self.files[f"{MIRROR}/{suite}/InRelease"] = f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{release}".encode()

    def __call__(self, url: str) -> bytes:
        self.asked.append(url.removeprefix(MIRROR + "/"))
        if url not in self.files:
            raise SourceError(f"cannot download {url}: the server answered 404")
        return self.files[url]
