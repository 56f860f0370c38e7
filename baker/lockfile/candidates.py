"""The present versions of Debian packages, from the indexes that a build read.

The file `InRelease` (or `Release`) of an archive lists its files by path and SHA-256, and each `Packages` lists the newest packages (see
"DebianRepository/Format" in the Debian wiki). The indexes are checked against the digests of the release. The signature of the release is
not checked, because the versions are only reported and nothing is installed from them.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from baker.core.errors import SourceError
from baker.lockfile.debversion import compare

RELEASES = ("/InRelease", "/Release")
BY_HASH = "/by-hash/SHA256/"
UNPACK: Mapping[str, Callable[[bytes], bytes]] = {".xz": lzma.decompress, ".gz": gzip.decompress, "": bytes}

Fetch = Callable[[str], bytes]  # URL -> content; SourceError
Kept = Callable[[str], bytes | None]  # digest ("sha256:...") -> bytes; None if they are not on this host


@dataclass(frozen=True)
class Release:
    """The release file of one suite. `files`: path below the release -> SHA-256. `automatic`: apt installs from the suite by default."""

    date: str
    files: Mapping[str, str]
    by_hash: bool
    automatic: bool


@dataclass(frozen=True)
class Listing:
    """A package index: its path without the compression suffix ("main/binary-amd64/Packages"), below the release at `url`."""

    url: str
    stem: str

    @property
    def base(self) -> str:
        return self.url.rpartition("/")[0]


@dataclass
class Candidates:
    """Reads each index once. `unread`: URL -> reason, for URLs that cannot be read."""

    fetch: Fetch
    kept: Kept = lambda digest: None
    unread: dict[str, str] = field(default_factory=dict)
    _releases: dict[str, Release | None] = field(default_factory=dict)
    _listings: dict[Listing, Mapping[tuple[str, str], str]] = field(default_factory=dict)

    def release(self, url: str) -> Release | None:
        """The present release file; None, with an entry in `unread`, if it cannot be read."""
        if url not in self._releases:
            try:
                self._releases[url] = parse_release(self.fetch(url).decode("utf-8", "replace"))
            except SourceError as error:
                self._releases[url] = None
                self.unread[url] = error.message
        return self._releases[url]

    def newest(self, listings: Iterable[Listing]) -> dict[tuple[str, str], str]:
        """(name, architecture) -> the newest version in any of the listings."""
        versions: dict[tuple[str, str], str] = {}
        for listing in listings:
            for key, version in self._listing(listing).items():
                if key not in versions or compare(versions[key], version) < 0:
                    versions[key] = version
        return versions

    def _listing(self, listing: Listing) -> Mapping[tuple[str, str], str]:
        if listing not in self._listings:
            release = self.release(listing.url)
            try:
                self._listings[listing] = parse_packages(self._read(listing, release)) if release and release.automatic else {}
            except SourceError as error:
                self.unread[f"{listing.base}/{listing.stem}"] = error.message
                self._listings[listing] = {}
        return self._listings[listing]

    def _read(self, listing: Listing, release: Release) -> str:
        ending = next((each for each in UNPACK if listing.stem + each in release.files), None)
        if ending is None:
            raise SourceError(f"{listing.url} does not list {listing.stem} any more", code="index.missing")
        path = listing.stem + ending
        digest = release.files[path]
        data = self.kept(f"sha256:{digest}")
        if data is None:
            place = f"{path.rpartition('/')[0]}{BY_HASH}{digest}" if release.by_hash else path
            data = self.fetch(f"{listing.base}/{place}")
        if hashlib.sha256(data).hexdigest() != digest:
            hint = "the mirror is being updated: try again later"
            raise SourceError(f"{listing.base}/{path} does not have the digest of its release file", hint=hint, code="index.mismatch")
        try:
            return UNPACK[ending](data).decode("utf-8", "replace")
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise SourceError(f"{listing.base}/{path} cannot be unpacked: {error}", code="index.unreadable") from error


def listings(fetched: Mapping[str, str], kept: Kept) -> tuple[Listing, ...]:
    """The package indexes among what a build fetched (URL -> digest)."""
    indexes = []
    for url in sorted(each for each in fetched if each.endswith(RELEASES)):
        base = url.rpartition("/")[0] + "/"
        data = kept(fetched[url])
        files = parse_release(data.decode("utf-8", "replace")).files if data else {}
        for path in sorted(each.removeprefix(base) for each in fetched if each.startswith(base)):
            directory, _, digest = path.partition(BY_HASH)
            names = [name for name, known in files.items() if known == digest and name.startswith(directory + "/")] if digest else [path]
            indexes += [Listing(url, stem) for stem in sorted({_stem(name) for name in names}) if stem.endswith("/Packages")]
    return tuple(dict.fromkeys(indexes))


def parse_release(text: str) -> Release:
    """Parse a release file, clear-signed or not. Any other text gives a release without files."""
    fields: dict[str, str] = {}
    files: dict[str, str] = {}
    section = ""
    for line in text.splitlines():
        if line.startswith(" "):
            words = line.split()
            if section == "SHA256" and len(words) == 3:
                files[words[2]] = words[0]
            continue
        section, _, value = line.partition(":")
        fields[section] = value.strip()
    return Release(fields.get("Date", ""), files, fields.get("Acquire-By-Hash") == "yes", fields.get("NotAutomatic") != "yes")


def parse_packages(text: str) -> dict[tuple[str, str], str]:
    """(name, architecture) -> the newest version in a `Packages` file."""
    versions: dict[tuple[str, str], str] = {}
    for paragraph in text.split("\n\n"):
        name = version = architecture = ""
        for line in paragraph.splitlines():
            if line.startswith("Package: "):
                name = line[9:].strip()
            elif line.startswith("Version: "):
                version = line[9:].strip()
            elif line.startswith("Architecture: "):
                architecture = line[14:].strip()
        key = (name, architecture)
        if name and version and (key not in versions or compare(versions[key], version) < 0):
            versions[key] = version
    return versions


def _stem(path: str) -> str:
    return next((path.removesuffix(ending) for ending in (".xz", ".gz") if path.endswith(ending)), path)
