"""Taking an archive in: everything in it is checked before anything of it is on record."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from baker.artifacts.disk import stored
from baker.catalog.bundle import Bundle, from_json
from baker.catalog.catalog import Catalog
from baker.catalog.imports import ImportCounts
from baker.core.disk_space import host_error
from baker.core.errors import BakeError, HostError, UsageError
from baker.core.events import Reporter
from baker.disks.qcow2_reader import backing_of
from baker.disks.raw import raw_digest
from baker.publish.archive.layout import BLOBS, KEYS, LARGEST_KEY, LARGEST_TEXT, MANIFEST, RECORDS, Manifest, Member, blob_member, parse
from baker.store.base import DIGEST, BlobStore, backing_path
from baker.trust.attest.keys import Keys, keyid_of, load_public

CHUNK = 1 << 20


@dataclass(frozen=True)
class Signer:
    """A key of an archive. `trusted`: whether its signatures count here."""

    name: str
    keyid: str
    trusted: bool


@dataclass(frozen=True)
class Imported:
    """What an archive brought. `digest` is that of its manifest."""

    bundle: Bundle
    taken: ImportCounts
    signers: tuple[Signer, ...]
    digest: str


@dataclass(frozen=True)
class _Contents:
    manifest: Manifest
    bundle: Bundle
    keys: Sequence[tuple[str, bytes]]  # (name, PEM)
    digest: str


def import_archive(
    path: Path,
    scratch: Path,
    catalog: Catalog,
    store: BlobStore,
    keys: Keys,
    *,
    beside: bool = False,
    trust: bool = False,
    report: Reporter,
) -> Imported:
    """Take the archive `path` in; once more changes nothing.

    The caller keeps the store from being collected: blobs come before the records that refer to them. `beside`: even if names and
    versions of its images mean other disks here; `trust`: its keys from now on. UsageError for such a conflict, HostError for an archive
    that is damaged, was changed or does not hang together: nothing of it is on record then.
    """
    with _opened(path) as tar:
        contents = _contents(tar)
        catalog.imports.check(contents.bundle, beside=beside)
        blobs = list(_blobs(tar, contents.manifest, scratch, store, report))
        _end(tar)
    _check_backing(contents.bundle, dict(blobs), store)
    for digest, file in blobs:
        if file is not None:
            store.delete(digest)  # what has that name has other bytes
            store.add_file(file)
    _check_disks(contents.bundle, store, report)
    taken = catalog.imports.take(contents.bundle, beside=beside)
    return Imported(contents.bundle, taken, tuple(_signers(contents.keys, keys, trust)), contents.digest)


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """The archive, read once from its beginning to its end."""
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r|") as tar:
            yield tar
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}") from error
    except (tarfile.TarError, EOFError) as error:
        raise HostError(f"{path} is no archive of bake, or is cut off: {error}", hint="bake archive IMAGE writes one") from error
    except OSError as error:
        raise host_error(error, Path(error.filename or path)) from error
    except BakeError as error:
        raise type(error)(f"{path}: {error.message}", hint=error.hint) from error


def _contents(tar: tarfile.TarFile) -> _Contents:
    """Everything before the blobs."""
    data = _bytes(tar, MANIFEST, LARGEST_TEXT)
    manifest = parse(data)
    texts = [each for each in manifest.members if not each.name.startswith(BLOBS)]
    if [each.name for each in texts][:1] != [RECORDS] or not all(each.name.startswith(KEYS) for each in texts[1:]):
        raise HostError("its manifest is not in the order of an archive")
    read = [_text(tar, each) for each in texts]
    try:
        bundle = from_json(json.loads(read[0]))
    except ValueError as error:
        raise HostError(f"its records cannot be read: {error}") from error
    listed = {each.name for each in manifest.members}
    for digest, what in bundle.blobs().items():
        if not DIGEST.fullmatch(digest) or blob_member(digest) not in listed:
            raise HostError(f"it lacks {what}: {digest}")
    keys = [(Path(each.name).stem, data) for each, data in zip(texts[1:], read[1:], strict=True)]
    return _Contents(manifest, bundle, keys, "sha256:" + hashlib.sha256(data).hexdigest())


def _text(tar: tarfile.TarFile, member: Member) -> bytes:
    data = _bytes(tar, member.name, LARGEST_TEXT if member.name == RECORDS else LARGEST_KEY)
    if hashlib.sha256(data).hexdigest() != member.sha256:
        raise HostError(f"{member.name} in it was changed: its bytes are not those that the manifest has")
    return data


def _bytes(tar: tarfile.TarFile, name: str, limit: int) -> bytes:
    info, file = _next(tar, name)
    if info.size > limit:
        raise HostError(f"{name} in it has {info.size} bytes: more than bake reads")
    return file.read()


def _next(tar: tarfile.TarFile, name: str) -> tuple[tarfile.TarInfo, IO[bytes]]:
    info = tar.next()
    if info is None:
        raise HostError(f"it ends before {name}: it is cut off")
    file = tar.extractfile(info) if info.isreg() else None
    if info.name != name or file is None:
        raise HostError(f"it has {info.name!r} where {name} belongs")
    return info, file


def _blobs(
    tar: tarfile.TarFile, manifest: Manifest, scratch: Path, store: BlobStore, report: Reporter
) -> Iterator[tuple[str, Path | None]]:
    """(digest, file) of each blob, in `scratch`; None for one that the store has already. HostError when one was changed."""
    members = [each for each in manifest.members if each.name.startswith(BLOBS)]
    total, done = sum(each.size for each in members), 0
    for number, member in enumerate(members):
        info, file = _next(tar, member.name)
        digest = f"sha256:{member.name.removeprefix(BLOBS)}"
        if not DIGEST.fullmatch(digest) or info.size != member.size:
            raise HostError(f"{member.name} in it has {info.size} bytes; its manifest says {member.size}")
        kept = scratch / f"{number}.blob" if not store.has(digest) or not store.verify(digest) else None
        if _copy(file, kept) != digest:
            raise HostError(f"{member.name} in it was changed: its bytes are not those of its name")
        done += info.size
        report.progress("import", done, total)
        yield digest, kept


def _copy(source: IO[bytes], destination: Path | None) -> str:
    """The digest of what was read; `destination` None: only read it."""
    digest, size = hashlib.sha256(), 0
    target = destination.open("wb") if destination else None
    try:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
            if target:
                target.write(chunk)
    finally:
        if target:
            target.close()
    return f"sha256:{digest.hexdigest()}"


def _end(tar: tarfile.TarFile) -> None:
    more = tar.next()
    if more is not None:
        raise HostError(f"it has {more.name!r} after its end, which its manifest does not list")


def _check_backing(bundle: Bundle, blobs: Mapping[str, Path | None], store: BlobStore) -> None:
    """That every disk stands on the one that its record says, and on nothing else of this host."""
    for image in bundle.images:
        for digest, below in zip(image.chain, (*image.chain[1:], None), strict=True):
            found = backing_of(blobs[digest] or store.path(digest))
            wanted = backing_path(below) if below else ""
            if found != wanted:
                raise HostError(
                    f"the disk {digest} in it stands on {found or 'nothing'}; its record says {below or 'that it stands alone'}"
                )


def _check_disks(bundle: Bundle, store: BlobStore, report: Reporter) -> None:
    """That the raw disk of each image is the one on record."""
    for image in bundle.images:
        if image.removed is None:
            report.info(f"checking the disk of {image.name}@{image.version} ({image.id})")
            found = raw_digest(stored(image, store))
            if found != image.digest:
                raise HostError(f"the disk of image {image.id} in it is {found}; its record says {image.digest}")


def _signers(found: Sequence[tuple[str, bytes]], keys: Keys, trust: bool) -> Iterator[Signer]:
    known = {key.keyid: key.name for key in keys.list()}
    for name, pem in found:
        public = load_public(pem)
        keyid = keyid_of(public)
        if keyid not in known and trust:
            free = name not in known.values()
            known[keyid] = keys.trust_key(public, name if free else f"{name[:48]}-{keyid[:12]}").name
        yield Signer(known.get(keyid, name), keyid, keyid in known)
