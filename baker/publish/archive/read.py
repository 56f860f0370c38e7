"""Import an archive. Everything in it is checked before any of its records is written."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from baker.artifacts.disk import stored
from baker.catalog.bundle import Bundle, from_json
from baker.catalog.catalog import Catalog
from baker.catalog.imports import ImportCounts
from baker.core.disk_space import free, full, host_error
from baker.core.errors import BakeError, HostError, UsageError
from baker.core.events import Reporter
from baker.core.tar_reader import TarError, TarMember, TarReader
from baker.disks.qcow2_reader import backing_of
from baker.disks.raw import raw_digest
from baker.publish.archive.layout import BLOBS, KEYS, LARGEST_KEY, LARGEST_TEXT, MANIFEST, RECORDS, Manifest, Member, blob_member, parse
from baker.store.base import DIGEST, BlobStore, backing_path
from baker.trust.attest.keys import Keys, keyid_of, load_public

KEPT_FREE = 512 << 20  # bytes of the scratch disk that an import leaves free


@dataclass(frozen=True)
class Signer:
    """A key in an archive. `trusted`: whether its signatures count on this host."""

    name: str
    keyid: str
    trusted: bool


@dataclass(frozen=True)
class Imported:
    """The result of an import."""

    bundle: Bundle  # all records in the archive
    taken: ImportCounts  # those that were new here
    signers: tuple[Signer, ...]
    digest: str  # of the archive's manifest


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
    """Import the archive `path`. Importing it again changes nothing.

    The caller must hold off garbage collection of the store, because blobs are stored before the records that refer to them. `beside`
    imports images even if their names and versions already mean other disks here; `trust` trusts the keys in the archive from now on.

    Raises UsageError for a conflict with records on this host, HostError for an archive that is damaged, changed or inconsistent. No
    record is written in either case.
    """
    with _opened(path) as tar:
        contents = _contents(tar)
        catalog.imports.check(contents.bundle, beside=beside)
        blobs = list(_blobs(tar, contents.manifest, scratch, store, report))
        _end(tar)
    _check_backing(contents.bundle, dict(blobs), store)
    for digest, file in blobs:
        if file is not None:
            store.delete(digest)  # a blob of this name in the store, if any, is damaged
            store.add_file(file)
    _check_disks(contents.bundle, store, report)
    taken = catalog.imports.take(contents.bundle, beside=beside)
    return Imported(contents.bundle, taken, tuple(_signers(contents.keys, keys, trust)), contents.digest)


@contextmanager
def _opened(path: Path) -> Iterator[TarReader]:
    """Open the archive for one sequential read. Errors get the path of the archive in front of their message."""
    try:
        with path.open("rb") as file:
            yield TarReader(file, budget=sys.maxsize)  # each member has a limit of its own
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}", hint="name an archive that `bake archive` wrote", code="archive.missing") from error
    except TarError as error:
        raise HostError(
            f"{path} is not a bake archive, or it is incomplete: {error.message}",
            hint="get another copy of it; bake archive IMAGE writes one",
            code="archive.invalid",
        ) from error
    except OSError as error:
        raise host_error(error, Path(error.filename or path)) from error
    except BakeError as error:
        raise type(error)(f"{path}: {error.message}", hint=error.hint, code=error.code) from error


def _damaged(problem: str) -> HostError:
    return HostError(problem, hint="get another copy of the archive", code="archive.damaged")


def _contents(tar: TarReader) -> _Contents:
    """Read and check everything before the blobs."""
    data = _bytes(tar, MANIFEST, LARGEST_TEXT)
    manifest = parse(data)
    texts = [each for each in manifest.members if not each.name.startswith(BLOBS)]
    if [each.name for each in texts][:1] != [RECORDS] or not all(each.name.startswith(KEYS) for each in texts[1:]):
        raise _damaged("the members in its manifest are not in the right order")
    read = [_text(tar, each) for each in texts]
    try:
        bundle = from_json(json.loads(read[0]))
    except ValueError as error:
        raise _damaged(f"its records are not JSON: {error}") from error
    listed = {each.name for each in manifest.members}
    for digest, what in bundle.blobs().items():
        if not DIGEST.fullmatch(digest) or blob_member(digest) not in listed:
            raise _damaged(f"it lacks {what}: {digest}")
    keys = [(Path(each.name).stem, data) for each, data in zip(texts[1:], read[1:], strict=True)]
    return _Contents(manifest, bundle, keys, "sha256:" + hashlib.sha256(data).hexdigest())


def _text(tar: TarReader, member: Member) -> bytes:
    data = _bytes(tar, member.name, LARGEST_TEXT if member.name == RECORDS else LARGEST_KEY)
    if hashlib.sha256(data).hexdigest() != member.sha256:
        raise _damaged(f"{member.name} in it was changed: its digest is not the one in the manifest")
    return data


def _bytes(tar: TarReader, name: str, limit: int) -> bytes:
    size = _next(tar, name).size
    if size > limit:
        raise _damaged(f"{name} in it has {size} bytes, more than the limit of {limit} bytes")
    return tar.read(size)


def _next(tar: TarReader, name: str) -> TarMember:
    member = tar.next()
    if member is None:
        raise _damaged(f"it is incomplete: it ends before {name}")
    if member.name != name or member.kind != "file":
        raise _damaged(f"it has {member.name!r} in the place of {name}")
    return member


def _blobs(tar: TarReader, manifest: Manifest, scratch: Path, store: BlobStore, report: Reporter) -> Iterator[tuple[str, Path | None]]:
    """(digest, file in `scratch`) of each blob; the file is None for a blob that the store already has. HostError for a changed blob."""
    members = [each for each in manifest.members if each.name.startswith(BLOBS)]
    total, done = sum(each.size for each in members), 0
    for number, member in enumerate(members):
        size = _next(tar, member.name).size
        digest = f"sha256:{member.name.removeprefix(BLOBS)}"
        if not DIGEST.fullmatch(digest) or size != member.size:
            raise _damaged(f"{member.name} in it has {size} bytes, but its manifest says {member.size}")
        kept = scratch / f"{number}.blob" if not store.has(digest) or not store.verify(digest) else None
        if kept and size > free(scratch) - KEPT_FREE:
            raise full(scratch, needed=size + KEPT_FREE)
        if _copy(tar, kept) != digest:
            raise _damaged(f"{member.name} in it was changed: its name is not the digest of its bytes")
        done += size
        report.progress("import", done, total)
        yield digest, kept


def _copy(tar: TarReader, destination: Path | None) -> str:
    """Copy a member's content to `destination`, or only read it when that is None. Returns the digest."""
    digest = hashlib.sha256()
    with destination.open("wb") if destination else nullcontext() as target:
        while chunk := tar.read():
            digest.update(chunk)
            if target:
                target.write(chunk)
    return f"sha256:{digest.hexdigest()}"


def _end(tar: TarReader) -> None:
    more = tar.next()
    if more is not None:
        raise _damaged(f"it has {more.name!r} at its end, which its manifest does not list")


def _check_backing(bundle: Bundle, blobs: Mapping[str, Path | None], store: BlobStore) -> None:
    """Raise HostError unless the backing file of every disk is the one on record, and no other file of this host."""
    for image in bundle.images:
        for digest, below in zip(image.chain, (*image.chain[1:], None), strict=True):
            found = backing_of(blobs[digest] or store.path(digest))
            wanted = backing_path(below) if below else ""
            if found != wanted:
                raise HostError(
                    f"the backing file of the disk {digest} is {found or 'missing'}, but its record says {below or 'that it has none'}",
                    hint="do not use this archive: it was not written by bake",
                    code="archive.backing-file",
                )


def _check_disks(bundle: Bundle, store: BlobStore, report: Reporter) -> None:
    """Raise HostError unless the raw disk of each image has the digest on record."""
    for image in bundle.images:
        if image.removed is None:
            report.info(f"checking the disk of {image.name}@{image.version} ({image.id})")
            found = raw_digest(stored(image, store))
            if found != image.digest:
                raise _damaged(f"the disk of image {image.id} has the digest {found}, but its record says {image.digest}")


def _signers(found: Sequence[tuple[str, bytes]], keys: Keys, trust: bool) -> Iterator[Signer]:
    """The keys in the archive (name, PEM). With `trust`, unknown keys are trusted from now on, under a name that is free."""
    known = {key.keyid: key.name for key in keys.list()}
    for name, pem in found:
        public = load_public(pem)
        keyid = keyid_of(public)
        if keyid not in known and trust:
            free = name not in known.values()
            known[keyid] = keys.trust_key(public, name if free else f"{name[:48]}-{keyid[:12]}").name
        yield Signer(known.get(keyid, name), keyid, keyid in known)
