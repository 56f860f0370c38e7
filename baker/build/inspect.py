"""Lists the content of an image: its digest, files and packages. The host reads the captured disk. If it cannot read the file system,
the guest lists its files just before its shutdown."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from baker.artifacts.changes import pack
from baker.artifacts.codecs import read_manifest, write_manifest
from baker.build.change_tracking import find_changes
from baker.build.values import GuestListing, Inspection
from baker.core.events import Reporter
from baker.core.model import Disk, FileEntry, Package, PackageList, SourceImage
from baker.disks.ext4.reader import UnsupportedFilesystem
from baker.disks.manifest import file_manifest
from baker.disks.packages.installed import disk_packages
from baker.disks.raw import raw_digest
from baker.machines.ssh.communicator import Communicator

if TYPE_CHECKING:
    from baker.build.values import Captured

MANIFEST = "manifest.jsonl.gz"
SOURCE_IS_AMI = "the source is an AMI, whose disk bake does not read"
NO_LISTING = "the guest has none of the package managers dpkg-query, rpm and apk"
CHANGES = "changes.jsonl.gz"
READABLE = frozenset({"ext2", "ext3", "ext4"})
# Files are separated by NUL. The path is last because it may contain any other character.
LIST_FILES = r"""
cd /
find . -xdev -printf '%y\t%m\t%U\t%G\t%s\t%T@\t%l\t%p\0' | gzip -c
"""
DIGEST_FILES = "cd / && find . -xdev -type f -print0 | xargs -0 sha256sum -z -b | gzip -c"
LIST_PACKAGES = r"""
if command -v dpkg-query >/dev/null; then dpkg-query -W -f '${binary:Package}\t${Version}\t${Architecture}\tdeb\n'
elif command -v rpm >/dev/null; then rpm -qa --qf '%{NAME}\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\t%{ARCH}\trpm\n'
elif command -v apk >/dev/null; then apk info -v | sed 's/-\([0-9][^-]*-r[0-9]*\)$/\t\1\t\tapk/'
fi
"""


def inspect(captured: Captured, source: SourceImage, scratch: Path) -> Inspection:
    """Inspect a captured disk or AMI. The bytes of an AMI are not available, so its digest is the digest of its manifest."""
    media, listing = captured.media, captured.guest_listing
    before = _packages(source.media) if isinstance(source.media, Disk) else PackageList(unread=(SOURCE_IS_AMI,))
    if not isinstance(media, Disk):
        assert listing is not None  # an AMI is listed in its guest, before the shutdown
        return Inspection(listing_digest(listing), listing.manifest, _count(listing.manifest), before, listing.packages)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="digest") as pool:  # hashing and listing use two processors
        digest = pool.submit(raw_digest, media, scratch=scratch)
        if listing:
            return Inspection(digest.result(), listing.manifest, _count(listing.manifest), before, listing.packages)
        manifest: Path | None = scratch / MANIFEST
        try:
            files = _write(file_manifest(media, scratch=scratch), scratch / MANIFEST)
        except UnsupportedFilesystem:
            manifest, files = None, 0
        after = _packages(media)
        return Inspection(digest.result(), manifest, files, before, after)


def warn_of_unread(report: Reporter, found: Inspection) -> None:
    """Warn that the package list of an image is not complete, and why."""
    if not found.packages_after.complete:
        report.warn(
            f"the list of the image's packages is not complete: {'; '.join(found.packages_after.unread)}",
            hint="a lock file does not pin these packages, and a rebuild cannot compare them for level L1",
        )


def write_changes(captured: Captured, source: SourceImage, manifest: Path | None, scratch: Path) -> Path | None:
    """Write the evidence `changes` (baker.artifacts.changes) of a captured disk; None where the changes are not known.
    UnsupportedFilesystem when a disk cannot be read."""
    if captured.changed_inodes is None or manifest is None or not isinstance(captured.media, Disk):
        return None
    ruled = frozenset(path for paths in captured.normalized.rules.values() for path in paths) if captured.normalized else frozenset()
    left = captured.before_normalizing or captured.media
    with manifest.open("rb") as file:
        found = find_changes(source.disk, left, read_manifest(file), captured.changed_inodes, ruled=ruled, scratch=scratch)
    destination = scratch / CHANGES
    destination.write_bytes(pack(found))
    return destination


def listing_digest(listing: GuestListing) -> str:
    """SHA-256 of a manifest's JSON lines: path, mode, owner, size, time and content of every file, sorted by path."""
    with gzip.open(listing.manifest) as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _write(entries: Iterable[FileEntry], destination: Path) -> int:
    with destination.open("wb") as file:
        return write_manifest(entries, file)


def readable_offline(kind: str) -> bool:
    """Whether the host can read a file system of this kind (as findmnt(8) or `stat -f` call it)."""
    return kind in READABLE or kind.startswith("ext2/ext3")


def list_in_guest(communicator: Communicator, scratch: Path) -> GuestListing:
    """The manifest and the packages as the guest sees them. This is slower than reading the disk: the guest hashes every file."""
    work = "/run/bake-listing"
    communicator.run(f"mkdir -p {work}; {{ {LIST_FILES.strip()}; }} > {work}/files; {{ {DIGEST_FILES}; }} > {work}/digests")
    communicator.get(f"{work}/files", scratch / "files.gz")
    communicator.get(f"{work}/digests", scratch / "digests.gz")
    packages = communicator.run(f"rm -r {work}; {LIST_PACKAGES}").stdout
    manifest = scratch / MANIFEST
    _write(sorted(_entries(scratch / "files.gz", _digests(scratch / "digests.gz")), key=lambda entry: entry.path), manifest)
    found = tuple(Package(*line.split("\t")) for line in packages.splitlines() if line.count("\t") == 3)
    return GuestListing(manifest, PackageList(found, () if found else (NO_LISTING,)))


TYPE_BITS = {"f": 0o100000, "d": 0o040000, "l": 0o120000, "c": 0o020000, "b": 0o060000, "p": 0o010000, "s": 0o140000}


def _entries(path: Path, digests: dict[str, str]) -> Iterator[FileEntry]:
    for record in gzip.decompress(path.read_bytes()).decode("utf-8", "surrogateescape").split("\0"):
        fields = record.lstrip("\n").split("\t", 7)
        if len(fields) == 8:
            kind, mode, uid, gid, size, mtime, target, name = fields
            clean = "/" + name.removeprefix(".").lstrip("/")
            bits = TYPE_BITS.get(kind, 0) | int(mode, 8)
            yield FileEntry(clean, bits, int(uid), int(gid), int(size), digests.get(name, ""), target, int(float(mtime)))


def _digests(path: Path) -> dict[str, str]:
    records = gzip.decompress(path.read_bytes()).decode("utf-8", "surrogateescape").split("\0")
    return {record[66:]: record[:64] for record in records if len(record) > 66}


def _packages(disk: Disk) -> PackageList:
    try:
        return disk_packages(disk)
    except UnsupportedFilesystem as error:
        return PackageList(unread=(error.message,))


def _count(manifest: Path) -> int:
    with gzip.open(manifest) as file:
        return sum(1 for _ in file)
