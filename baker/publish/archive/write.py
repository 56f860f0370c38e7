"""Writing an archive: whole and checked, or not there."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from baker.catalog.bundle import Bundle
from baker.catalog.catalog import Catalog
from baker.catalog.records import ImageRecord
from baker.core.errors import HostError, NotFoundError, UsageError
from baker.core.events import Reporter
from baker.publish.archive.collect import gather
from baker.publish.archive.layout import KEYS, MANIFEST, RECORDS, Manifest, Member, blob_member
from baker.publish.export import whole_or_absent
from baker.store.base import BlobStore
from baker.trust.attest.keys import Keys


@dataclass(frozen=True)
class Written:
    """An archive that was written. `digest` is that of its manifest, which has the digests of all the rest."""

    path: Path
    size: int
    blobs: int
    images: int
    digest: str


def archive(
    image: ImageRecord, destination: Path, catalog: Catalog, store: BlobStore, keys: Keys, *, overwrite: bool = False, report: Reporter
) -> Written:
    """Write `image` with everything on record to `destination` (in a directory: as NAME-VERSION.bake).

    The caller keeps the store from being collected. NotFoundError that names each blob which is missing; HostError when one was
    changed, or the disk is full; UsageError when there is such a file already.
    """
    if destination.is_dir():
        destination = destination / f"{image.name}-{image.version}.bake"
    if not destination.parent.is_dir():
        raise UsageError(f"there is no directory {destination.parent}")
    if destination.exists() and not (overwrite and destination.is_file()):
        raise UsageError(f"{destination} exists already", hint="--overwrite replaces a file, -o names another one")
    bundle = gather(catalog, image)
    _check(bundle, store)
    records = (json.dumps(bundle.to_json(), separators=(",", ":")) + "\n").encode()
    texts = {RECORDS: records} | {f"{KEYS}{name}.pub": pem.encode() for name, pem in _signers(bundle, keys)}
    digests = sorted(bundle.blobs())
    members = [Member(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in texts.items()]
    members += [Member(blob_member(each), each.removeprefix("sha256:"), store.size(each)) for each in digests]
    manifest = Manifest(image.id, f"{image.name}@{image.version}", tuple(members)).dump()
    total, done = sum(each.size for each in members), 0
    with (
        whole_or_absent(destination) as part,
        part.open("wb") as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, data in {MANIFEST: manifest, **texts}.items():
            tar.addfile(_info(name, len(data)), io.BytesIO(data))
        for digest in digests:
            size = store.size(digest)
            with store.open(digest) as blob:
                tar.addfile(_info(blob_member(digest), size), checked := _Checked(blob))
            checked.check(digest, bundle.blobs()[digest])
            done += size
            report.progress("archive", done, total)
    return Written(
        destination, destination.stat().st_size, len(digests), len(bundle.images), "sha256:" + hashlib.sha256(manifest).hexdigest()
    )


def _check(bundle: Bundle, store: BlobStore) -> None:
    image = bundle.image
    title = f"{image.name}@{image.version} ({image.id})"
    elsewhere = [each for each in bundle.images if not each.chain]
    if elsewhere:
        raise NotFoundError(f"{title}: image {elsewhere[0].id} was baked by {elsewhere[0].builder}, so there is no disk of it on this host")
    missing = [f"\n  {what}: {digest}" for digest, what in bundle.blobs().items() if not store.has(digest)]
    if missing:
        raise NotFoundError(f"{title} cannot be archived; the store lacks{''.join(missing)}", hint="bake audit says what else is wrong")


def _signers(bundle: Bundle, keys: Keys) -> Iterator[tuple[str, str]]:
    """(name, PEM) of each key that signed something about these images and is known here."""
    signed = {each.keyid for each in bundle.attestations}
    for key in sorted(keys.list(), key=lambda key: key.keyid):
        if key.keyid in signed:
            signed.discard(key.keyid)
            yield key.name, key.pem


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    return info


class _Checked(io.RawIOBase):
    """A blob as it is read, with its digest."""

    def __init__(self, blob: BinaryIO) -> None:
        self._blob, self._digest = blob, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._blob.read(size)
        self._digest.update(data)
        return data

    def check(self, digest: str, what: str) -> None:
        found = f"sha256:{self._digest.hexdigest()}"
        if found != digest:
            raise HostError(
                f"the store does not hold what is on record: {what} is {digest}, its bytes are {found}",
                hint="restore it from a copy of the store: bake archives nothing that was changed",
            )
