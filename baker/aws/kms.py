"""Sign with a key in AWS KMS: `awskms:///alias/NAME`, `awskms:///KEY-ID`, or `awskms:///ARN` (in the region of the ARN).

The key is asymmetric, for signing, with the key spec ECC_NIST_P256. KMS gets the SHA-256 digest of the data, because it signs messages of
at most 4 KiB directly.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

from baker.aws.errors import translated
from baker.aws.session import Access, Aws
from baker.core.errors import HostError, UsageError

SCHEME = "awskms"
SPEC = "ECC_NIST_P256"
ALGORITHM = "ECDSA_SHA_256"


class KmsSigner:
    """Implements baker.trust.attest.dsse.Signer."""

    def __init__(self, key: str, aws: Aws | None = None) -> None:
        """`key` is the part after "awskms:". UsageError when it does not name a key."""
        self.key = key.removeprefix("///")
        if self.key == key or not self.key or self.key.startswith("/"):
            raise UsageError(
                f"{SCHEME}:{key} does not name a key",
                hint=f"use {SCHEME}:///alias/NAME, {SCHEME}:///KEY-ID or {SCHEME}:///ARN",
                code="kms.key-uri",
            )
        parts = self.key.split(":")
        self._aws = aws or Aws(Access(region=parts[3] if parts[0] == "arn" and len(parts) > 5 else None))

    @property
    def keyid(self) -> str:
        return hashlib.sha256(self.public).hexdigest()

    @cached_property
    def public(self) -> bytes:
        """The public key in DER form (SubjectPublicKeyInfo, RFC 5280). HostError for a key of another kind."""
        with translated(f"the KMS key {self.key}"):
            found: dict[str, Any] = self._aws.client("kms").get_public_key(KeyId=self.key)
        if ALGORITHM not in found.get("SigningAlgorithms", ()):
            spec = found.get("KeySpec") or found.get("CustomerMasterKeySpec")
            raise HostError(
                f"the KMS key {self.key} has the spec {spec} and the usage {found.get('KeyUsage')}",
                hint=f"use a key with the spec {SPEC} and the usage SIGN_VERIFY",
                code="kms.key-type",
            )
        return bytes(found["PublicKey"])

    def sign(self, data: bytes) -> bytes:
        """The ECDSA signature of `data`, in DER form."""
        digest = hashlib.sha256(data).digest()
        with translated(f"signing with the KMS key {self.key}"):
            answer = self._aws.client("kms").sign(KeyId=self.key, Message=digest, MessageType="DIGEST", SigningAlgorithm=ALGORITHM)
        return bytes(answer["Signature"])
