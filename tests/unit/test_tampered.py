"""Evidence that somebody tampered with, kind by kind: what `bake verify` and `bake audit` say to the user, and that it is just that."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from baker.catalog.records import Revocation
from baker.core.events import Memory
from baker.lockfile.model import load_lock
from baker.lockfile.write import Built, make_lock, write_lock
from baker.trust.attest import dsse
from baker.trust.attest.keys import Keys
from tests.support.cli import Bake
from tests.support.shop import Shop, open_shop, qcow2
from tests.support.workshop import open_workshop

WEB, BASE = "a00000000002", "a00000000001"
AT = "2026-01-01T00:00:00Z"
OLD = "2020-01-01T00:00:00Z"
NAUGHT = "sha256:" + "0" * 64
ADD_IMAGE = f"""
INSERT INTO images SELECT 9, 'a00000000009', name, '1.3.0', digest, fingerprint, parent, '{OLD}', size, virtual_size, verified, build,
builder, firmware, ssh_username, description, labels, matrix, removed, origin FROM images WHERE id = '{WEB}'
"""


@dataclass(frozen=True)
class Case:
    """What is done, and the failed checks: of `bake verify` as "name subject: words", of `bake audit` as "name: words", of `bake verify`
    without an image as "name: words". All of them, in order; words are patterns."""

    tamper: Callable[[Shop], object]
    verify: tuple[str, ...]
    audit: tuple[str, ...]
    catalog: tuple[str, ...] = ()


def record(
    statement: str, subject: str, words: str, *more: str, audit: tuple[str, ...] = (), after: tuple[str, ...] = (), title: str = "records"
) -> Case:
    """A case of a changed database, which the record's own check names in all three."""
    return Case(
        lambda shop: shop.sql(statement),
        (f"record {subject}: {words}", *more),
        (*audit, f"{title}: {subject}[^:]*: {words}", *after),
        (f"record: {words}",),
    )


def evidence_of(shop: Shop, name: str, build: str = "b00000000002") -> str:
    return shop.baker.catalog.build(build).evidence[name]


def envelope(shop: Shop) -> str:
    return shop.baker.catalog.attestations.of(WEB)[0].digest


def other_disk(shop: Shop) -> str:
    """Another good disk on the same base."""
    base = shop.base.chain[0]
    return shop.baker.store.add_disk(qcow2(shop.cli.home / "other.qcow2", b"x", shop.baker.store.path(base)), base)


def replace_disk(shop: Shop) -> None:
    """The bytes of another disk in the place of web's."""
    other, mine = (shop.baker.store.path(digest) for digest in (other_disk(shop), shop.web.chain[0]))
    mine.chmod(0o600)
    mine.write_bytes(other.read_bytes())


def reseal(shop: Shop, change: Callable[[dsse.Envelope], dsse.Envelope]) -> None:
    """A changed envelope in the place of web's, with a row that fits it."""
    store = shop.baker.store
    with store.open(envelope(shop)) as file:
        digest = store.add_bytes(dsse.dump(change(dsse.parse(file.read()))))
    shop.sql(f"UPDATE attestations SET digest = '{digest}' WHERE image = '{WEB}'")


def mallory(shop: Shop) -> Keys:
    keys = Keys(shop.cli.home / "mallory", {})
    keys.create("mallory")
    return keys


def sign_anew(shop: Shop) -> None:
    """Somebody else's signature under the id of the key that is trusted."""
    signer = mallory(shop).signer("mallory")
    assert signer
    reseal(
        shop,
        lambda e: replace(dsse.seal(e.payload, signer), signatures=((e.signatures[0][0], dsse.seal(e.payload, signer).signatures[0][1]),)),
    )


def exchange_key(shop: Shop) -> None:
    (shop.data / "keys/default.pub").write_text(mallory(shop).public("mallory").pem)


def revoke(shop: Shop) -> None:
    shop.baker.catalog.revocations.add(Revocation(BASE, "CVE-1", "me", AT, AT, descendants=True))


BYTES = r"the blob sha256:\w{64} was changed: its bytes do not match its digest"
GONE = r"the blob sha256:\w{64} is not in the store"
SLSA = r"https://slsa.dev/provenance/v1 by key \w{16}: "
UNTRUSTED = SLSA + r"the key is not trusted here"
UNFIT = SLSA + "the signature does not match the payload and the key"
CHANGED = "was changed after it was registered"
DELETED = "was registered, but is no longer in the catalog: it was deleted by other means"
ADDED = "is in the catalog, but the journal has no entry for it: it was added by other means, or its entry was removed"
DIFFERS = "the record differs from the signed statement: predicate."
COMMIT = DIFFERS + r"buildDefinition.resolvedDependencies\[0\].digest.gitCommit"
ENVELOPE = f"the record of attestation 2 {CHANGED}"

CASES: dict[str, Case] = {
    # records
    "image record": record(f"UPDATE images SET ssh_username = 'x' WHERE id = '{WEB}'", "web", f"the record of image {WEB} {CHANGED}"),
    "image digest": record(
        f"UPDATE images SET digest = '{NAUGHT}' WHERE id = '{WEB}'",
        "web",
        f"the record of image {WEB} {CHANGED}",
        rf"disk web: the disk has the digest sha256:\w+; on record is {NAUGHT}",
        f"signature web: {SLSA}its subject is another disk",
        r"provenance web: the record differs from the signed statement: subject\[0\].digest.sha256",
        audit=(rf"disk: its digest is sha256:\w+, but {NAUGHT} is on record",),
        after=(f"signatures: web.*{SLSA}its subject is another disk", r"provenance: web.*subject\[0\].digest.sha256"),
    ),
    "build record": record(
        "UPDATE builds SET git_commit = 'x' WHERE id = 'b00000000002'",
        "web",
        f"the record of build b00000000002 {CHANGED}",
        f"provenance web: {COMMIT}",
        after=(f"provenance: web.*{COMMIT}",),
    ),
    "build record of the base": record(
        f"UPDATE builds SET started = '{OLD}' WHERE id = 'b00000000001'",
        "debian-13",
        f"the record of build b00000000001 {CHANGED}",
        rf"provenance debian-13: {DIFFERS}runDetails.metadata.startedOn",
        after=(rf"provenance: debian-13.*{DIFFERS}runDetails.metadata.startedOn",),
    ),
    "template of the base": record(
        "UPDATE builds SET template_text = 'x' WHERE id = 'b00000000001'",
        "debian-13",
        f"the record of build b00000000001 {CHANGED}",
        audit=("template: the text on record for debian-13@13.1.0 has the digest",),
    ),
    "step": record(
        "UPDATE steps SET seconds = 1 WHERE build = 'b00000000002' AND kind = 'shell'", "web", f"the record of build b00000000002 {CHANGED}"
    ),
    "test result": record("DELETE FROM tests WHERE build = 'b00000000002'", "web", f"the record of build b00000000002 {CHANGED}"),
    "row of the image removed": record(
        f"DELETE FROM images WHERE id = '{BASE}'",
        "catalog",
        f"image {BASE} {DELETED}",
        f"provenance web: {DIFFERS}buildDefinition.resolvedDependencies",
        audit=(f"lineage: the record of image {BASE} is missing",),
        after=(f"provenance: web.*{DIFFERS}",),
    ),
    "row of the build removed": record(
        "DELETE FROM builds WHERE id = 'b00000000002'",
        "web",
        f"build b00000000002 {DELETED}",
        "evidence web: there is no record of build b00000000002",
        "provenance web: the record cannot be compared with the signed statement: there is no build",
        audit=("record of the build: the record of build b00000000002, which made web@1.4.0, is missing",),
        after=("provenance: web.*there is no build",),
    ),
    "row of the attestation removed": record(f"DELETE FROM attestations WHERE image = '{WEB}'", "catalog", f"attestation 2 {DELETED}"),
    "row added": record(
        f"INSERT INTO revocations VALUES (7, '{WEB}', 'none', 'eve', '{AT}', '2999-01-01T00:00:00Z', 0, NULL, '')",
        "catalog",
        f"revocation 7 {ADDED}",
    ),
    # blobs
    "byte of the disk": Case(
        lambda s: s.flip(s.web.chain[0]), (f"disk web: {BYTES}",), (r"disk blobs: disk 0 \(sha256:\w+\) was changed",)
    ),
    "byte of the base's disk": Case(
        lambda s: s.flip(s.base.chain[0]),
        (f"disk web: {BYTES}", f"disk debian-13: {BYTES}"),
        (r"disk blobs: disk 1 \(sha256:\w+\) was changed",),
    ),
    "disk gone": Case(
        lambda s: s.baker.store.delete(s.web.chain[0]), (f"disk web: {GONE}",), (r"disk blobs: disk 0 \(sha256:\w+\) is missing",)
    ),
    "evidence changed": Case(
        lambda s: s.flip(evidence_of(s, "log")), (f"evidence web: log: {BYTES}",), (r"evidence: log \(sha256:\w+\) was changed",)
    ),
    "evidence of the base gone": Case(
        lambda s: s.baker.store.delete(evidence_of(s, "log", "b00000000001")),
        (f"evidence debian-13: log: {GONE}",),
        (r"evidence of debian-13@13.1.0: log \(sha256:\w+\) is missing",),
    ),
    "envelope changed": Case(
        lambda s: s.flip(envelope(s)),
        (rf"signature web: {SLSA}the envelope sha256:\w+ was changed",),
        (
            r"attestations and rebuilds: attestation \(sha256:\w+\) was changed",
            rf"signatures: web.*{SLSA}the envelope sha256:\w+ was changed",
        ),
    ),
    "envelope gone": Case(
        lambda s: s.baker.store.delete(envelope(s)),
        (rf"signature web: {SLSA}the envelope sha256:\w+ is not in the store",),
        (
            r"attestations and rebuilds: attestation \(sha256:\w+\) is missing",
            rf"signatures: web.*{SLSA}the envelope sha256:\w+ is not in the store",
        ),
    ),
    # images
    "disk replaced in the store": Case(replace_disk, (f"disk web: {BYTES}",), (r"disk blobs: disk 0 \(sha256:\w+\) was changed",)),
    "disk replaced on record": Case(
        lambda s: s.sql(f"UPDATE image_blobs SET digest = '{other_disk(s)}' WHERE image = '{WEB}' AND position = 0"),
        (f"record web: the record of image {WEB} {CHANGED}", r"disk web: the disk has the digest sha256:\w+; on record is sha256:\w+"),
        (r"disk: its digest is sha256:\w+, but sha256:\w+ is on record", f"records: web.*image {WEB} {CHANGED}"),
        (f"record: the record of image {WEB} {CHANGED}",),
    ),
    # signatures
    "statement": Case(
        lambda s: reseal(s, lambda e: replace(e, payload=e.payload.replace(b"c0ffee", b"c0ffef"))),
        (f"record catalog: {ENVELOPE}", f"signature web: {UNFIT}", f"provenance web: {COMMIT}"),
        (f"records: catalog: {ENVELOPE}", f"signatures: web.*{UNFIT}", f"provenance: web.*{COMMIT}"),
        (f"record: {ENVELOPE}",),
    ),
    "signature": Case(
        lambda s: reseal(s, lambda e: replace(e, signatures=((e.signatures[0][0], bytes(64)),))),
        (f"record catalog: {ENVELOPE}", f"signature web: {UNFIT}"),
        (f"records: catalog: {ENVELOPE}", f"signatures: web.*{UNFIT}"),
        (f"record: {ENVELOPE}",),
    ),
    "signature of another key": Case(
        sign_anew,
        (f"record catalog: {ENVELOPE}", f"signature web: {UNFIT}"),
        (f"records: catalog: {ENVELOPE}", f"signatures: web.*{UNFIT}"),
        (f"record: {ENVELOPE}",),
    ),
    "key exchanged": Case(
        exchange_key,
        (f"signature web: {UNTRUSTED}", f"signature debian-13: {UNTRUSTED}"),
        (f"signatures: web.*{UNTRUSTED}.*debian-13.*{UNTRUSTED}",),
    ),
    "key removed": Case(
        lambda s: (s.data / "keys/default.pub").unlink(),
        (f"signature web: {UNTRUSTED}", f"signature debian-13: {UNTRUSTED}"),
        (f"signatures: web.*{UNTRUSTED}.*debian-13.*{UNTRUSTED}",),
    ),
    # journal
    "journal entry changed": Case(
        lambda s: s.sql(f"UPDATE journal SET at = '{OLD}' WHERE serial = 2"),
        (rf"journal catalog: journal entry 2 \(image of image:{BASE}\) was changed",),
        (rf"chain of records: catalog: journal entry 2 \(image of image:{BASE}\) was changed",),
        (r"journal: journal entry 2 .* was changed",),
    ),
    "journal entry removed": Case(
        lambda s: s.sql("DELETE FROM journal WHERE serial = 3"),
        ("journal catalog: journal entry 3 is missing", f"record web: build b00000000002 {ADDED}"),
        ("chain of records: catalog: journal entry 3 is missing", f"records: web.*build b00000000002 {ADDED}"),
        ("journal: journal entry 3 is missing", f"record: build b00000000002 {ADDED}"),
    ),
    "head of the journal removed": record("DELETE FROM journal WHERE serial = 6", "catalog", f"attestation 2 {ADDED}"),
    # and what everybody may do
    "revocation": Case(
        revoke,
        (f"revocation web: revoked since {AT} by me, through image {BASE}: CVE-1", "revocation debian-13: revoked"),
        (f"revocation: revoked through image {BASE} as of {AT} by me: CVE-1",),
    ),
}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return open_shop(tmp_path)


def are(found: list[str], wanted: tuple[str, ...]) -> None:
    assert len(found) == len(wanted), "\n".join(found)
    for text, pattern in zip(found, wanted, strict=True):
        assert re.match(pattern, text, re.DOTALL), f"{text}\nis not\n{pattern}"


@pytest.mark.parametrize("what", CASES)
def test_what_was_tampered_with_is_named_and_nothing_else(shop: Shop, what: str) -> None:
    case = CASES[what]
    case.tamper(shop)
    are(shop.failed(), case.verify)
    are(shop.audited(), case.audit)
    whole = shop.cli("verify", "--json")
    are([f"{each['name']}: {each['detail']}" for each in json.loads(whole.out)["checks"] if not each["ok"]], case.catalog)
    assert whole.code == (4 if case.catalog else 0)
    for verb, fault in (("verify", shop.failed()[0]), ("audit", shop.audited()[0])):  # and as text, on whatever page
        assert fault.partition(": ")[2].split("\n")[0] in shop.cli(verb, "web").out


def test_the_page_of_a_browser_names_it_too(shop: Shop, tmp_path: Path) -> None:
    shop.sql(f"UPDATE images SET ssh_username = 'x' WHERE id = '{WEB}'")
    assert shop.cli("audit", "web", "--html", tmp_path / "web.html").code == 4
    page = (tmp_path / "web.html").read_text()
    assert f"the record of image {WEB} {CHANGED}" in page and "Something is wrong" in page


def test_an_image_that_was_added_or_taken_away_by_other_means_is_named(shop: Shop) -> None:
    shop.sql(ADD_IMAGE)
    assert f"record a00000000009: image a00000000009 {ADDED}" in [
        f"{each['name']} {each['subject'][-13:-1]}: {each['detail']}"
        for each in json.loads(shop.cli("verify", "web@1.3.0", "--json").out)["checks"]
    ]
    shop.sql(f"DELETE FROM images WHERE id IN ('{WEB}', 'a00000000009')")
    assert shop.cli("audit", "web").code == 5
    result = shop.cli("verify")
    assert result.code == 4 and f"image {WEB} {DELETED}" in result.out


def test_a_lock_that_was_edited_is_named_by_the_build_before_a_machine_starts(tmp_path: Path) -> None:
    """As a user builds: another process, the real builder, which is never asked."""
    with open_workshop(tmp_path) as workshop:
        build = workshop.bake("shell: step-1")
        template = workshop.template("shell: step-1")
        assert build.image
        made = make_lock([Built(template, workshop.catalog.build_of(build.image))], workshop.services(Memory()).store, dict)
        path = workshop.directory / "web.lock.yaml"
        write_lock(path, made)
    text = path.read_text()
    digest = load_lock(path).images["web"].source.digest
    assert digest in text
    path.write_text(text.replace(digest, NAUGHT))
    result = Bake(tmp_path / "home")("build", "--locked", template.path)
    assert result.code == 8, result.err
    said = f"web.lock.yaml: the source is disk.qcow2 (file) {digest}, and disk.qcow2 (file) {NAUGHT} in the lock"
    assert said in result.err and "bake lock --update web.yaml" in result.err
