"""Make and sign statements about images. The envelopes are kept in the store, with a row in the catalog for each."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from baker.artifacts.fetches import fetched
from baker.catalog.catalog import Catalog
from baker.catalog.records import Attestation, ImageRecord, JournalEntry
from baker.core import host_facts
from baker.core.errors import HostError, NotFoundError
from baker.core.home import Home
from baker.core.leases import Leases
from baker.core.workspace import STORE_LEASE
from baker.store.base import BlobStore
from baker.trust.attest import dsse, provenance
from baker.trust.attest.keys import AWS_KMS, Keys


@dataclass(frozen=True)
class TrustContext:
    """The records, blobs and keys to work with. `leases` is None when the caller already holds the lease against garbage collection."""

    catalog: Catalog
    store: BlobStore
    keys: Keys
    leases: Leases | None = None

    @classmethod
    def of(cls, home: Home, catalog: Catalog, store: BlobStore, env: Mapping[str, str], leases: Leases | None = None) -> TrustContext:
        """The context of one home. Without `leases`, the caller holds the lease against garbage collection, as a build does."""
        return cls(catalog, store, Keys(home.data / "keys", env), leases)


class RebuildFinding(Protocol):
    """The result of a rebuild; see baker.rebuild.rebuild."""

    @property
    def image(self) -> ImageRecord: ...

    def to_json(self) -> dict[str, Any]: ...


def attest(image: ImageRecord, trust: TrustContext, *, key: str = "") -> Attestation:
    """Sign the provenance of an image. NotFoundError when there is no such key, or no default key."""
    return _keep(image, provenance.PROVENANCE, provenance_of(image, trust, trust.catalog.journal.head()), trust, key)


def sign_rebuild(finding: RebuildFinding, trust: TrustContext, *, key: str = "") -> str:
    """Sign the result of a rebuild: level, digests, causes. Returns the digest of the envelope in the store."""
    image = finding.image
    predicate = {
        **finding.to_json(),
        "expected": image.digest,
        "verifiedBy": host_facts.who(),
        "verifiedOn": host_facts.now(),
        "journal": _anchor(trust.catalog.journal.head()),
    }
    return _keep(image, provenance.REBUILD, provenance.statement(image, provenance.REBUILD, predicate), trust, key).digest


def provenance_of(image: ImageRecord, trust: TrustContext, head: JournalEntry | None) -> bytes:
    """The provenance statement for the present record of an image. `head` is the journal entry to put into it as the anchor."""
    catalog = trust.catalog
    build = catalog.build_of(image)
    ancestors = catalog.history(image)[1:]
    return provenance.provenance(image, build, ancestors, fetched(build, trust.store), _anchor(head))


def envelope_of(attestation: Attestation, store: BlobStore) -> dsse.Envelope:
    """The envelope of an attestation. NotFoundError when the store lacks it, HostError when it is malformed."""
    with store.open(attestation.digest) as file:
        return dsse.parse(file.read())


def anchor_of(statement: Mapping[str, Any]) -> tuple[int, str] | None:
    """The journal entry (serial, hash) that was the last one when the statement was signed; None when it has no anchor."""
    try:
        predicate = statement["predicate"]
        found = predicate["journal"] if "journal" in predicate else predicate["buildDefinition"]["internalParameters"]["journal"]
        return (int(found["serial"]), str(found["hash"])) if found else None
    except (KeyError, TypeError, ValueError):
        return None


def _anchor(head: JournalEntry | None) -> dict[str, Any]:
    return {"serial": head.serial, "hash": head.hash} if head else {}


def _keep(image: ImageRecord, predicate: str, payload: bytes, trust: TrustContext, key: str) -> Attestation:
    signer = trust.keys.signer(key)
    if signer is None:
        raise NotFoundError("there is no key to sign with", hint="bake keys create makes one", code="key.none")
    envelope = dsse.seal(payload, signer)
    if signer.keyid not in {each.keyid for each in trust.keys.list()}:
        raise HostError(
            f"the public key of {key or 'the default signer'} is not trusted here, so its signature could not be checked",
            hint=f"bake keys trust {key}" if key.startswith(AWS_KMS) else "bake keys trust PUBFILE",
            code="key.not-trusted",
        )
    if not dsse.signed_by(envelope, trust.keys.check):
        raise HostError(
            f"the signature of {key or 'the default signer'} does not match its public key, so it was discarded",
            hint="check that the trusted public key belongs to the signer",
            code="attest.bad-signature",
        )
    with trust.leases.shared(STORE_LEASE) if trust.leases else nullcontext():
        digest = trust.store.add_bytes(dsse.dump(envelope))
        attestation = Attestation(image.id, predicate, digest, signer.keyid, host_facts.who(), host_facts.now())
        trust.catalog.attestations.add(attestation)
    return attestation
