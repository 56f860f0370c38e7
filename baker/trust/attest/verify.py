"""Verify images and their ancestors: blobs against the records, and the records against the journal and the signatures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from baker.artifacts.disk import stored
from baker.catalog.journal import IMPORTED, subject_of
from baker.catalog.records import Attestation, BuildRecord, ImageRecord, JournalEntry
from baker.core.errors import BakeError, NotFoundError
from baker.disks.raw import raw_digest
from baker.trust.attest import provenance
from baker.trust.attest.dsse import PAYLOAD_TYPE, Envelope, signed_by
from baker.trust.attest.signing import TrustContext, anchor_of, envelope_of, provenance_of


@dataclass(frozen=True)
class Check:
    """The result of one check. `ok` is None when there was nothing to check; `detail` gives the reason."""

    name: str  # journal, record, evidence, disk, parents, signature, provenance, revocation, policy
    subject: str  # "web@1.4.0 (1f2e3d4c5b6a)", or "catalog"
    ok: bool | None
    detail: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Signed:
    """A statement with a valid signature by a key that is trusted here."""

    attestation: Attestation
    keyids: tuple[str, ...]
    statement: dict[str, Any]


def verify(image: ImageRecord, trust: TrustContext, *, at: str) -> list[Check]:
    """All checks: those of the catalog, then those of the image, its parent, and so on up to the root. `at` is the present time."""
    try:
        line = trust.catalog.history(image)
    except BakeError as error:
        return [Check("parents", title(image), False, str(error))]
    found = list(_records(line, trust))
    blobs: dict[str, str] = {}
    for number, each in enumerate(line):
        parent = line[number + 1] if number + 1 < len(line) else None
        found += [*_evidence(each, trust, blobs), _disk(each, trust, blobs), _parents(each, parent)]
        found += _signatures(each, trust)
        found.append(_revocation(each, trust, at))
    return found


def verify_records(image: ImageRecord, trust: TrustContext) -> Iterator[Check]:
    """The checks that need no disk: journal, records and signatures, and whether the signed statements match the records."""
    line = trust.catalog.history(image)
    yield from _records(line, trust)
    for each in line:
        yield from _signatures(each, trust)


def verify_catalog(trust: TrustContext) -> list[Check]:
    """Check the journal's chain of hashes and the content of every record in the catalog."""
    faults = [Check("record" if f.subject != "journal" else "journal", "catalog", False, f.message) for f in trust.catalog.check_chain()]
    return faults or [Check("journal", "catalog", True, _length(trust))]


def title(image: ImageRecord) -> str:
    """ "web@1.4.0 (1f2e3d4c5b6a)"."""
    return f"{image.name}@{image.version} ({image.id})"


def signed(image: ImageRecord, trust: TrustContext, predicate: str | None = None) -> Iterator[Signed]:
    """The statements about an image with valid signatures, oldest first."""
    for attestation in trust.catalog.attestations.of(image.id, predicate):
        try:
            envelope = envelope_of(attestation, trust.store)
            if trust.store.verify(attestation.digest) and not list(_envelope_faults(image, attestation, envelope, trust)):
                yield Signed(attestation, signed_by(envelope, trust.keys.check), envelope.statement)
        except BakeError:
            continue


# --- the records -------------------------------------------------------------------------------------------------------


def _records(line: Sequence[ImageRecord], trust: TrustContext) -> Iterator[Check]:
    catalog = trust.catalog
    subjects = {subject_of("image", image.id): image for image in line} | {subject_of("build", image.build): image for image in line}
    faults = list(catalog.check_chain([image.id for image in line]))
    chain = [fault for fault in faults if fault.subject == "journal"]
    yield from (Check("journal", "catalog", False, fault.message) for fault in chain)
    if not chain:
        yield Check("journal", "catalog", True, _length(trust))
    yield from (Check("record", "catalog", False, f.message) for f in faults if f.subject != "journal" and f.subject not in subjects)
    for image in line:
        own = [fault.message for fault in faults if subjects.get(fault.subject) == image]
        detail = "; ".join(own) or f"the records of the image and of build {image.build} are unchanged since their registration"
        yield Check("record", title(image), not own, detail)


def _length(trust: TrustContext) -> str:
    head = trust.catalog.journal.head()
    return f"the chain of {head.serial} entries is intact" if head else "there are no entries"


# --- the bytes ---------------------------------------------------------------------------------------------------------


def _evidence(image: ImageRecord, trust: TrustContext, blobs: dict[str, str]) -> Iterator[Check]:
    build = _build(image, trust)
    if build is None:
        yield Check("evidence", title(image), False, f"there is no record of build {image.build}")
        return
    wrong = [f"{name}: {fault}" for name, digest in build.evidence.items() if (fault := _blob_fault(digest, trust, blobs))]
    yield Check("evidence", title(image), not wrong, "; ".join(wrong) or f"{len(build.evidence)} blobs match their digests on record")


def _disk(image: ImageRecord, trust: TrustContext, blobs: dict[str, str]) -> Check:
    if not image.chain:
        return Check("disk", title(image), None, f"it was made by the builder {image.builder}: its disk is not on this host")
    if image.removed and not trust.store.has(image.chain[0]):
        return Check("disk", title(image), None, f"it was removed at {image.removed}")
    wrong = [fault for digest in image.chain if (fault := _blob_fault(digest, trust, blobs))]
    if wrong:
        return Check("disk", title(image), False, "; ".join(wrong))
    try:
        found = raw_digest(stored(image, trust.store))
    except BakeError as error:
        return Check("disk", title(image), False, str(error))
    same = found == image.digest
    return Check("disk", title(image), same, found if same else f"the disk has the digest {found}; on record is {image.digest}")


def _blob_fault(digest: str, trust: TrustContext, blobs: dict[str, str]) -> str:
    """The fault of a blob, or "". `blobs` caches the answers, so that each blob is read only once."""
    if digest not in blobs:
        try:
            blobs[digest] = "" if trust.store.verify(digest) else f"the blob {digest} was changed: its bytes do not match its digest"
        except (BakeError, OSError):
            blobs[digest] = f"the blob {digest} is not in the store"
    return blobs[digest]


def _parents(image: ImageRecord, parent: ImageRecord | None) -> Check:
    if parent is None:
        return Check("parents", title(image), True, "it has no parent")
    matches = image.chain[1:] == parent.chain
    detail = f"its parent is {title(parent)}"
    return Check("parents", title(image), matches, detail if matches else f"{detail}, but its disk is not backed by the parent's blobs")


def _build(image: ImageRecord, trust: TrustContext) -> BuildRecord | None:
    try:
        return trust.catalog.build_of(image)
    except BakeError:
        return None


# --- the statements ----------------------------------------------------------------------------------------------------


def _signatures(image: ImageRecord, trust: TrustContext) -> Iterator[Check]:
    attestations = trust.catalog.attestations.of(image.id)
    if not attestations:
        yield Check("signature", title(image), None, "it has no attestations")
    for attestation in attestations:
        short = f"{attestation.predicate} by key {attestation.keyid[:16]}"
        try:
            if not trust.store.verify(attestation.digest):
                yield Check("signature", title(image), False, f"{short}: the envelope {attestation.digest} was changed")
                continue
            envelope = envelope_of(attestation, trust.store)
            wrong = list(_envelope_faults(image, attestation, envelope, trust))
        except NotFoundError:
            yield Check("signature", title(image), False, f"{short}: the envelope {attestation.digest} is not in the store")
            continue
        except BakeError as error:
            yield Check("signature", title(image), False, f"{short}: the envelope {attestation.digest}: {error.message}")
            continue
        yield Check("signature", title(image), not wrong, f"{short}: {'; '.join(wrong) or 'valid'}")
        yield from _provenance(image, attestation, envelope, trust)


def _envelope_faults(image: ImageRecord, attestation: Attestation, envelope: Envelope, trust: TrustContext) -> Iterator[str]:
    trusted = {key.keyid for key in trust.keys.list()}
    if envelope.payload_type != PAYLOAD_TYPE:
        yield f"the payload's type is {envelope.payload_type}"
    if attestation.keyid not in trusted:
        yield "the key is not trusted here (bake keys trust PUBFILE)"
    elif attestation.keyid not in signed_by(envelope, trust.keys.check):
        yield "the signature does not match the payload and the key"
    statement = envelope.statement
    subjects = statement.get("subject") or [{}]
    digest = subjects[0].get("digest", {}) if isinstance(subjects[0], dict) else {}
    if digest != {"sha256": image.digest.removeprefix("sha256:")}:
        yield "its subject is another disk"
    if statement.get("predicateType") != attestation.predicate:
        yield f"its predicate type is {statement.get('predicateType')}"


def _provenance(image: ImageRecord, attestation: Attestation, envelope: Envelope, trust: TrustContext) -> Iterator[Check]:
    """Compare a signed statement with the present record, and the journal with the entry that the statement names as its anchor."""
    statement = envelope.statement
    anchor = anchor_of(statement)
    if anchor and trust.catalog.journal.hash_at(anchor[0]) != anchor[1]:
        imported = any(entry.kind == IMPORTED for entry in trust.catalog.journal.entries(subject_of("image", image.id)))
        elsewhere = f"it was signed with entry {anchor[0]} of another catalog's journal"
        rewritten = f"entry {anchor[0]} is not the one that was signed: the journal was rewritten"
        yield Check("journal", title(image), None if imported else False, elsewhere if imported else rewritten)
    if attestation.predicate != provenance.PROVENANCE:
        return
    head = JournalEntry(anchor[0], "", "", "", "", anchor[1], "") if anchor else None
    try:
        same = provenance_of(image, trust, head) == envelope.payload
        detail = "the signed statement matches the record" if same else "; ".join(_differences(image, trust, head, statement))
        yield Check("provenance", title(image), same, detail)
    except (BakeError, OSError, ValueError, EOFError) as error:
        yield Check("provenance", title(image), False, f"the record cannot be compared with the signed statement: {error}")


def _differences(image: ImageRecord, trust: TrustContext, head: JournalEntry | None, statement: dict[str, Any]) -> Iterable[str]:
    import json

    found = list(differing(json.loads(provenance_of(image, trust, head)), statement))
    return [f"the record differs from the signed statement: {', '.join(found[:5])}{' and more' if len(found) > 5 else ''}"]


def differing(now: Any, then: Any, path: str = "") -> Iterator[str]:
    """The paths where two JSON values differ, such as "predicate.runDetails.metadata.startedOn"."""
    if isinstance(now, dict) and isinstance(then, dict):
        for name in sorted(now.keys() | then.keys()):
            yield from differing(now.get(name), then.get(name), f"{path}.{name}" if path else name)
    elif isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        for number, (one, other) in enumerate(zip(now, then, strict=True)):
            yield from differing(one, other, f"{path}[{number}]")
    elif now != then:
        yield path


def _revocation(image: ImageRecord, trust: TrustContext, at: str) -> Check:
    revocation = trust.catalog.revocations.of(image.id)
    if revocation is None or revocation.effective > at:
        detail = f"not revoked before {revocation.effective}" if revocation else "not revoked"
        return Check("revocation", title(image), True, detail)
    through = f", through image {revocation.inherited_from}" if revocation.inherited_from else ""
    return Check(
        "revocation", title(image), False, f"revoked since {revocation.effective} by {revocation.who}{through}: {revocation.reason}"
    )
