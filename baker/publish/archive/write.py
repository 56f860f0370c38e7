"""Write an archive. The file appears only when it is complete and checked."""

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
    """An archive that was written."""

    path: Path
    size: int  # bytes
    blobs: int
    images: int
    digest: str  # of its manifest, which contains the digests of all other members


def archive(
    image: ImageRecord, destination: Path, catalog: Catalog, store: BlobStore, keys: Keys, *, overwrite: bool = False, report: Reporter
) -> Written:
    """Write `image` with all its records to `destination` (in a directory: as NAME-VERSION.bake).

    The caller must hold off garbage collection of the store. Raises NotFoundError, which names each missing blob, HostError when a blob
    was changed or the disk is full, UsageError when the file already exists.
    """
    if destination.is_dir():
        destination = destination / f"{image.name}-{image.version}.bake"
    if not destination.parent.is_dir():
        raise UsageError(f"there is no directory {destination.parent}", hint="make it first", code="output.no-directory")
    if destination.exists() and not (overwrite and destination.is_file()):
        raise UsageError(f"{destination} already exists", hint="--overwrite replaces a file, -o names another one", code="output.exists")
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
        raise NotFoundError(
            f"{title}: image {elsewhere[0].id} was made by the builder {elsewhere[0].builder}: its disk is not on this host",
            hint="archive an image that a builder on this host made",
            code="image.no-local-disk",
        )
    missing = [f"\n  {what}: {digest}" for digest, what in bundle.blobs().items() if not store.has(digest)]
    if missing:
        raise NotFoundError(
            f"{title} cannot be archived; the store lacks{''.join(missing)}",
            hint="restore them from a copy of the store; bake audit lists all faults",
            code="store.no-such-blob",
        )


def _signers(bundle: Bundle, keys: Keys) -> Iterator[tuple[str, str]]:
    """(name, PEM) of each trusted key that signed an attestation in the bundle."""
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
    """A blob that computes its digest while it is read."""

    def __init__(self, blob: BinaryIO) -> None:
        self._blob, self._digest = blob, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._blob.read(size)
        self._digest.update(data)
        return data

    def check(self, digest: str, what: str) -> None:
        """Raise HostError unless the bytes that were read have this digest; `what` describes the blob."""
        found = f"sha256:{self._digest.hexdigest()}"
        if found != digest:
            raise HostError(
                f"a blob in the store was changed: {what} is {digest} on record, but its bytes have the digest {found}",
                hint="restore it from a copy of the store",
                code="store.blob-changed",
            )
