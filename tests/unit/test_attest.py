"""Keys, statements, and the checks that name what was tampered with: record, journal, blob, disk, signature, key."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from baker.catalog.records import Attestation, ImageRecord, Revocation
from baker.core.errors import BakeError, HostError, NotFoundError, UsageError
from baker.trust.attest import dsse, provenance
from baker.trust.attest.keys import Keys, keyid_of, load_public
from baker.trust.attest.signing import sign_rebuild
from tests.support.fake_app import Cli, an_image
from tests.support.journal import enter_all
from tests.support.plugins import on_path
from tests.support.shop import Shop, open_shop, qcow2, register


@dataclass(frozen=True)
class Rebuilt:
    """The verdict of a rebuild."""

    image: ImageRecord
    level: int = 3

    def to_json(self) -> dict[str, object]:
        return {"image": self.image.id, "level": self.level, "rebuilt": self.image.digest, "causes": []}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return open_shop(tmp_path)


# --- what holds --------------------------------------------------------------------------------------------------------


def test_what_was_not_touched_holds(shop: Shop) -> None:
    assert shop.failed() == []
    result = shop.cli("verify", "web")
    assert result.code == 0 and "all checks passed" in result.err
    lines = [line.split()[:2] for line in result.out.splitlines() if line.startswith("  ")]
    names = ("evidence", "disk", "parents", "signature", "provenance", "revocation")
    assert lines == [["ok", name] for name in ("journal", "record", "record", *names, *names)]
    assert shop.cli("verify").code == 0


def test_the_statement_has_every_input_and_nothing_secret(shop: Shop) -> None:
    statement = json.loads(shop.cli("attest", "web", "--statement").out)
    assert statement["_type"] == "https://in-toto.io/Statement/v1" and statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert statement["subject"][0]["digest"] == {"sha256": shop.web.digest.removeprefix("sha256:")}
    found = {each["uri"]: each["digest"] for each in statement["predicate"]["buildDefinition"]["resolvedDependencies"]}
    assert found["file:files/a"] == {"sha256": "1" * 64}
    assert found["http://deb/nginx.deb"] == {"sha256": "9" * 64}
    assert found["image:debian-13@13.1.0"] == {"sha256": shop.base.digest.removeprefix("sha256:")}
    assert found["source:image"] and found["git"] and found["file:/home/someone/web.yaml"]
    assert statement["predicate"]["buildDefinition"]["externalParameters"]["variables"]["token"] == {"hmac": "0" * 32}
    assert statement["predicate"]["runDetails"]["metadata"] == {
        "invocationId": "b00000000002", "startedOn": "2026-11-22T19:58:00Z", "finishedOn": "2026-11-22T20:00:12Z",
    }  # fmt: skip


def test_an_envelope_is_what_others_can_check(shop: Shop, tmp_path: Path) -> None:
    """With OpenSSL, from the exported key alone."""
    envelope = dsse.parse(shop.cli("attest", "web", "--envelope").out.encode())
    files = {"key": shop.cli("keys", "export", "default").out.encode(), "sig": envelope.signatures[0][1],
             "data": dsse.pre_authentication(envelope.payload_type, envelope.payload)}  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    argv = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key", "-rawin", "-in", "data", "-sigfile", "sig"]
    assert "Verified Successfully" in subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=True).stdout


def test_the_encoding_that_is_signed_is_the_published_one() -> None:
    """The example of the DSSE protocol's specification."""
    assert dsse.pre_authentication("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_an_image_that_nobody_signed_is_said_to_be_so(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    register(cli.baker, an_image(), (cli.baker.store.add_disk(qcow2(tmp_path / "a", b"a"), None),))
    result = cli("verify", "web")
    assert result.code == 0 and "-       signature   it has no attestations" in result.out
    assert cli("attest", "web").code == 5
    assert "bake keys create" in cli("attest", "web").err


# --- tampering ---------------------------------------------------------------------------------------------------------

WEB, BASE = "a00000000002", "a00000000001"


def replaced_envelope(shop: Shop, change: Callable[[dsse.Envelope], dsse.Envelope]) -> str:
    """Put a changed envelope in the place of web's, with a row that fits it."""
    store, (old,) = shop.baker.store, shop.baker.catalog.attestations.of(WEB)
    with store.open(old.digest) as file:
        digest = store.add_bytes(dsse.dump(change(dsse.parse(file.read()))))
    shop.sql(f"UPDATE attestations SET digest = '{digest}' WHERE image = '{WEB}'")
    return digest


def test_a_changed_statement_does_not_fit_its_signature(shop: Shop) -> None:
    replaced_envelope(shop, lambda e: replace(e, payload=e.payload.replace(b"c0ffee", b"c0ffef")))
    found = shop.failed()
    assert any("signature web" in fault and "does not match the payload" in fault for fault in found)
    assert any("record catalog: the record of attestation 2 was changed" in fault for fault in found)
    assert any("provenance web" in fault for fault in found)


def test_a_changed_signature_does_not_fit(shop: Shop) -> None:
    replaced_envelope(shop, lambda e: replace(e, signatures=((e.signatures[0][0], bytes(64)),)))
    assert any("signature web" in fault and "does not match the payload and the key" in fault for fault in shop.failed())


def test_an_envelope_of_another_image_is_not_taken(shop: Shop) -> None:
    (other,) = shop.baker.catalog.attestations.of(BASE)
    shop.baker.catalog.attestations.add(replace(other, image=WEB))
    assert any("signature web" in fault and "its subject is another disk" in fault for fault in shop.failed())


def test_an_envelope_that_is_none_is_named(shop: Shop) -> None:
    digest = shop.baker.store.add_bytes(b'{"payload": 1}')
    shop.baker.catalog.attestations.add(Attestation(WEB, provenance.PROVENANCE, digest, "f" * 64, "me", "2026-11-22T20:00:00Z"))
    assert any("not a DSSE envelope" in fault for fault in shop.failed())


def test_a_journal_that_was_made_anew_is_found_by_what_was_signed(shop: Shop) -> None:
    """Somebody changes a record and computes the whole chain again: it fits, but no signature vouches for it."""
    shop.sql("UPDATE builds SET who = 'nobody'", "DELETE FROM journal")
    enter_all(shop.baker.catalog, "build")
    found = shop.failed()
    assert not [fault for fault in found if fault.startswith(("journal catalog", "record"))]
    assert [fault.split(":")[0] for fault in found if fault.startswith("journal")] == ["journal web", "journal debian-13"]


def test_records_of_another_catalog_are_held_against_their_signatures_alone(shop: Shop) -> None:
    """As an archive brings them: with a journal of their own."""
    shop.sql("DELETE FROM journal")
    enter_all(shop.baker.catalog, "imported")
    assert shop.failed() == []
    assert "-       journal     it was signed with entry 4 of another catalog's journal" in shop.cli("verify", "web").out
    shop.sql("UPDATE builds SET git_commit = 'x' WHERE id = 'b00000000002'", "DELETE FROM journal")
    enter_all(shop.baker.catalog, "imported")
    assert ["provenance web" in fault for fault in shop.failed()] == [True]


# --- policies ----------------------------------------------------------------------------------------------------------


def policy(shop: Shop, text: str) -> Path:
    path = shop.cli.home / "policy.yaml"
    path.write_text(text)
    return path


def test_an_image_that_has_all_that_a_policy_asks_for(shop: Shop) -> None:
    sign_rebuild(Rebuilt(shop.web), shop.baker.trust)
    text = "signed_by: [default]\nlevel: L3\nno_revoked_ancestor: true\ntests_passed: true\nreproducible: true\nno_committed: true\n"
    assert shop.failed("--policy", policy(shop, text + "base_not_older_than: 36500d\n")) == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("signed_by: ci", "signed_by: no valid signature by ci"),
        ("signed_by: [ci, " + "0" * 64 + "]", "signed_by: no valid signature by ci, 0000000000000000"),
        ("level: 2", "level: there is no signed rebuild, so L2 is not reached"),
        ("base_not_older_than: 1m", "days old, and at most"),
    ],
)
def test_what_a_policy_asks_for_and_an_image_lacks(shop: Shop, text: str, named: str) -> None:
    (found,) = shop.failed("--policy", policy(shop, text))
    assert found.startswith("policy web: ") and named in found


@pytest.mark.parametrize(
    ("text", "change", "named"),
    [
        ("no_revoked_ancestor: true", "revoke", "no_revoked_ancestor: web@1.4.0 (a00000000002) is revoked: CVE-1; debian-13@13.1.0"),
        (
            "tests_passed: true",
            "UPDATE images SET verified = 0",
            "tests_passed: the tests of its build passed, but it is not on record as verified",
        ),
        ("tests_passed: true", "UPDATE builds SET verify = 'skipped'", "tests_passed: the status of its tests is skipped"),
        ("reproducible: true", "UPDATE builds SET reproduction = '{}'", "reproducible: its template does not request it"),
        (
            "reproducible: true",
            """UPDATE builds SET reproduction = '{"refused": "LVM"}'""",
            "reproducible: its disk was not normalized: LVM",
        ),
        ("no_committed: true", "UPDATE images SET origin = 'committed'", "no_committed: web@1.4.0 (a00000000002) was changed by hand"),
    ],
)
def test_what_a_policy_finds_in_records(shop: Shop, text: str, change: str, named: str) -> None:
    """Each is met before, and not after."""
    file = policy(shop, text)
    assert shop.failed("--policy", file) == []
    if change == "revoke":
        at = "2026-01-01T00:00:00Z"
        shop.baker.catalog.revocations.add(Revocation(BASE, "CVE-1", "me", at, at, descendants=True))
    else:
        shop.sql(change)
    (found,) = [each for each in shop.failed("--policy", file) if each.startswith("policy")]
    assert found.startswith(f"policy web: {named}")
    result = shop.cli("verify", "web", "--policy", file)
    assert result.code == 4 and named in result.out


def test_the_newest_signed_rebuild_counts(shop: Shop) -> None:
    for level in (3, 1):
        sign_rebuild(Rebuilt(shop.web, level), shop.baker.trust)
    assert "reached L1, and L3 is required" in shop.failed("--policy", policy(shop, "level: 3"))[0]


def test_a_policy_whose_key_was_exchanged_is_not_met(shop: Shop, tmp_path: Path) -> None:
    """What the name of a key stands for was replaced by another key."""
    other = Keys(tmp_path / "other", {})
    other.create("x")
    (shop.data / "keys/default.pub").write_text(other.public("x").pem)
    found = shop.failed("--policy", policy(shop, "signed_by: [default]"))
    assert "policy web: signed_by: no valid signature by default" in found
    assert any("signature web" in fault and "the key is not trusted here" in fault for fault in found)


@pytest.mark.parametrize(
    ("text", "place", "code", "fact"),
    [
        ("levle: 3\n", ":1:1", "policy.unknown-key", r'"levle"(?s:.*)level\?'),
        ("tests_passed: yes\nlevel: 4\n", ":2:8", "policy.value", 'level: "4"'),
        ("signed_by: [nobody]\n", ":1:13", "key.not-trusted", '"nobody"'),
        ("signed_by: []\n", ":1:12", "policy.value", "signed_by"),
        ("base_not_older_than: soon\n", ":1:22", "policy.value", 'base_not_older_than: "soon"'),
        ("reproducible: 1\n", ":1:15", "policy.value", 'reproducible: "1"'),
        ("- level\n", ":1:1", "policy.not-a-mapping", "tests_passed: true"),
        ("{}\n", ":1:1", "policy.empty", "signed_by, level"),
        ("", "", "template.", "empty"),
    ],
)
def test_what_is_wrong_in_a_policy_is_said_with_its_place(shop: Shop, text: str, place: str, code: str, fact: str) -> None:
    result = shop.cli("verify", "web", "--policy", policy(shop, text))
    assert result.code == 2
    assert f"policy.yaml{place}: " in result.err and code in result.err
    assert re.search(fact, result.err), result.err


# --- keys --------------------------------------------------------------------------------------------------------------


def test_keys_are_kept_for_their_owner_alone(shop: Shop) -> None:
    assert (shop.data / "keys/default.pem").stat().st_mode & 0o777 == 0o600
    lines = shop.cli("keys", "list").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["ci", "default"] and "signs images" in lines[2]
    key = json.loads(shop.cli("keys", "list", "--json").out)[1]
    assert key["keyid"] == keyid_of(load_public(key["pem"].encode()))
    assert shop.cli("keys", "create", "ci").code == 2


def test_a_key_goes_to_another_host_with_a_passphrase_or_without(shop: Shop, tmp_path: Path) -> None:
    shop.cli("keys", "export", "ci", "--private", "-o", tmp_path / "ci.pem")
    other = Cli(tmp_path / "elsewhere", env={"BAKE_KEY_PASSPHRASE": "correct horse"})
    assert other("keys", "import", tmp_path / "ci.pem").code == 0
    assert "ENCRYPTED" in other("keys", "export", "ci", "--private").out
    here, there = (json.loads(cli("keys", "list", "--json").out)[0]["keyid"] for cli in (shop.cli, other))
    assert here == there
    locked = Keys(tmp_path / "elsewhere/data/keys", {})
    with pytest.raises(HostError, match=r"ci (?s:.*)BAKE_KEY_PASSPHRASE") as refused:
        locked.signer("ci")
    assert refused.value.code == "key.passphrase"


def test_signatures_of_others_hold_when_their_key_is_trusted(shop: Shop, tmp_path: Path) -> None:
    """The catalog and the store went to somebody who has the public key only."""
    shop.cli("keys", "export", "default", "-o", tmp_path / "baker.pub")
    for path in (shop.data / "keys").iterdir():
        path.unlink()
    assert all("the key is not trusted here" in fault for fault in shop.failed())
    assert shop.cli("keys", "trust", tmp_path / "baker.pub").code == 0
    assert shop.failed() == []
    assert "no valid signature" not in str(shop.failed("--policy", policy(shop, "signed_by: baker")))


SIGNER = """
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

class Token:
    def __init__(self, rest):
        self.key = Ed25519PrivateKey.from_private_bytes(rest.encode().ljust(32, b"0"))
        public = self.key.public_key()
        self.pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        digest = hashes.Hash(hashes.SHA256())
        digest.update(public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
        self.keyid = digest.finalize().hex()

    def sign(self, data):
        return self.key.sign(data)
"""


def test_a_plugin_signs_with_a_key_that_never_is_on_this_host(shop: Shop, tmp_path: Path) -> None:
    """What a KMS or a PKCS#11 token is to bake: an entry point, and a public key to trust."""
    site = tmp_path / "site"
    (site / "bake_token-1.dist-info").mkdir(parents=True)
    (site / "bake_token.py").write_text(SIGNER)
    (site / "bake_token-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: bake-token\nVersion: 1\n")
    (site / "bake_token-1.dist-info/entry_points.txt").write_text("[bake.signers]\ntoken = bake_token:Token\n")
    with on_path(site):
        result = shop.cli("attest", "web", "--key", "token:slot1")
        assert result.code == 6 and "is not trusted here" in result.err
        (tmp_path / "slot1.pub").write_bytes(importlib.import_module("bake_token").Token("slot1").pem)
        assert shop.cli("keys", "trust", tmp_path / "slot1.pub").code == 0
        assert shop.cli("attest", "web", "--key", "token:slot1").code == 0
        assert shop.cli("keys", "default", "token:slot1").code == 0
        assert shop.cli("attest", "debian-13").code == 0
    assert shop.failed("--policy", policy(shop, "signed_by: slot1")) == []


def test_what_is_no_key_is_refused(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "x.pub").write_text("hello")
    keys = Keys(shop.data / "keys", {})
    refusals: list[tuple[type[BakeError], Callable[[], object], str, str]] = [
        (UsageError, lambda: keys.trust(tmp_path / "x.pub"), "key.not-a-public-key", "PEM"),
        (UsageError, lambda: keys.create("../x"), "key.name", r"\.\./x"),
        (NotFoundError, lambda: keys.signer("kms:alias/x"), "key.no-plugin", "kms:"),
        (NotFoundError, lambda: keys.signer("nobody"), "key.no-private-key", "nobody"),
    ]
    for kind, action, code, fact in refusals:
        with pytest.raises(kind, match=fact) as refused:
            action()
        assert refused.value.code == code
