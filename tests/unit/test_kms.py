"""Signing with a key in AWS KMS: the private half never is here, the signature is checked with the public one."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from baker.aws.kms import KmsSigner
from baker.core.errors import UsageError
from baker.trust.attest.dsse import parse, pre_authentication
from baker.trust.attest.keys import Keys
from tests.ec2 import Emulator
from tests.support.keyed import KeyedAws
from tests.support.shop import Shop, open_shop

REGION = "eu-central-1"
PEM = "-----BEGIN PUBLIC KEY-----\n{}-----END PUBLIC KEY-----\n"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An account with a key that signs, `alias/images`, and one that cannot, `alias/disks`."""
    with Emulator(tmp_path_factory.mktemp("kms"), region=REGION) as cloud:
        kms = cloud.client("kms")
        for alias, spec, usage in (
            ("images", "ECC_NIST_P256", "SIGN_VERIFY"),
            ("large", "ECC_NIST_P384", "SIGN_VERIFY"),
            ("disks", "SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT"),
        ):
            key = kms.create_key(KeySpec=spec, KeyUsage=usage)["KeyMetadata"]["KeyId"]
            kms.create_alias(AliasName=f"alias/{alias}", TargetKeyId=key)
        yield cloud


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return open_shop(tmp_path)


def bake(shop: Shop, cloud: Emulator, *argv: str) -> subprocess.CompletedProcess[str]:
    """In a process, whose environment says where AWS is."""
    env = {**shop.cli.environment, **cloud.env}
    return subprocess.run([sys.executable, "-m", "baker", *argv], env=env, capture_output=True, text=True, check=False)


def test_an_image_is_signed_by_kms_and_verified_without_it(shop: Shop, cloud: Emulator, tmp_path: Path) -> None:
    signing = bake(shop, cloud, "attest", "web", "--key", "awskms:///alias/images")
    assert signing.returncode == 6 and "bake keys trust awskms:///alias/images" in signing.stderr
    for words in (
        ("keys", "trust", "awskms:///alias/images", "--name", "kms"),
        ("attest", "web", "--key", "awskms:///alias/images"),
        ("keys", "default", "awskms:///alias/images"),
        ("attest", "debian-13"),
    ):
        done = bake(shop, cloud, *words)
        assert done.returncode == 0, done.stderr
    assert "awskms:///alias/images signs images" in shop.cli("keys", "list").err
    asked = len(cloud.calls)
    assert {call["action"] for call in cloud.calls} == {"GetPublicKey", "Sign"} and cloud.unread == []
    (tmp_path / "policy.yaml").write_text("signed_by: kms\n")
    assert shop.failed("--policy", tmp_path / "policy.yaml") == []
    assert len(cloud.calls) == asked, "whoever verifies needs no AWS"


def test_openssl_agrees_and_a_changed_payload_does_not_pass(shop: Shop, cloud: Emulator, tmp_path: Path) -> None:
    for words in (("keys", "trust", "awskms:///alias/images"), ("attest", "web", "--key", "awskms:///alias/images")):
        assert bake(shop, cloud, *words).returncode == 0
    signed = shop.baker.catalog.attestations.of(shop.web.id)[-1]
    with shop.baker.store.open(signed.digest) as file:
        envelope = parse(file.read())
    ((keyid, signature),) = envelope.signatures
    keys = Keys(shop.data / "keys", {})
    data = pre_authentication(envelope.payload_type, envelope.payload)
    for name, content in {"key": keys.public("images").pem.encode(), "sig": signature, "data": data}.items():
        (tmp_path / name).write_bytes(content)
    argv = ["openssl", "dgst", "-sha256", "-verify", "key", "-signature", "sig", "data"]
    assert "Verified OK" in subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert keys.check(keyid, data, signature)
    assert not keys.check(keyid, data + b" ", signature)
    assert not keys.check(keyid, data, bytes(64))
    named = [each for each in json.loads(shop.cli("keys", "list", "--json").out) if each["keyid"] == keyid]
    assert [(each["name"], each["own"]) for each in named] == [("images", False)]


@pytest.mark.parametrize(
    ("key", "code", "facts"),
    [
        ("awskms:///alias/nobody", "aws.refused", ("alias/nobody",)),
        ("awskms:///alias/disks", "kms.key-type", ("alias/disks",)),
        ("awskms:///alias/large", "kms.key-type", ("alias/large", "ECC_NIST_P384", "SIGN_VERIFY", "ECC_NIST_P256")),
        ("awskms:alias/images", "kms.key-uri", ("awskms:alias/images", "awskms:///alias/NAME")),
    ],
)
def test_a_key_that_cannot_sign_is_told(shop: Shop, cloud: Emulator, key: str, code: str, facts: tuple[str, ...]) -> None:
    result = bake(shop, cloud, "attest", "web", "--key", key)
    assert result.returncode and code in result.stderr and "Traceback" not in result.stderr
    assert all(fact in result.stderr for fact in facts), result.stderr
    assert len(shop.baker.catalog.attestations.of(shop.web.id)) == 1


def test_what_is_longer_than_a_message_may_be_is_signed(cloud: Emulator, tmp_path: Path) -> None:
    """KMS takes 4 KiB at most; a statement with many inputs has more."""
    signer = KmsSigner("///alias/images", KeyedAws(cloud))
    keys = Keys(tmp_path, {})
    (tmp_path / "images.pub").write_text(PEM.format(base64.encodebytes(signer.public).decode()))
    assert keys.check(signer.keyid, b"x" * 100_000, signer.sign(b"x" * 100_000))


def test_an_arn_says_its_region(cloud: Emulator) -> None:
    key = cloud.client("kms", "eu-west-1").create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    assert len(KmsSigner(f"///{key}", KeyedAws(cloud, "eu-west-1")).keyid) == 64
    with pytest.raises(UsageError, match="awskms://host/alias/x") as refused:
        KmsSigner("//host/alias/x")
    assert refused.value.code == "kms.key-uri"
