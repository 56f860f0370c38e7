"""DSSE envelopes (Dead Simple Signing Envelope, protocol and envelope version 1.0.0) around in-toto statements.

The signature covers the pre-authentication encoding of the payload's type and bytes, so that neither can be reinterpreted.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from baker.core.errors import HostError

PAYLOAD_TYPE = "application/vnd.in-toto+json"


class Signer(Protocol):
    """The holder of a private key: a file, a KMS, a token."""

    @property
    def keyid(self) -> str:
        """The SHA-256 of the public key's DER form (SubjectPublicKeyInfo), 64 hex digits."""

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`: 64 bytes for ed25519, DER for ECDSA with SHA-256."""


@dataclass(frozen=True)
class Envelope:
    """A payload with its signatures."""

    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]  # (keyid, signature)
    payload_type: str = PAYLOAD_TYPE

    @property
    def statement(self) -> dict[str, Any]:
        """The in-toto statement in the payload. HostError when there is none."""
        found = json.loads(self.payload)
        if not isinstance(found, dict):
            raise HostError("the payload of the envelope is not a statement", hint="sign the image again", code="attest.invalid-envelope")
        return found


Check = Callable[[str, bytes, bytes], bool]  # (keyid, data, signature) -> whether the key made it; False for a key that is not trusted


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """PAE(type, payload): "DSSEv1" SP LEN(type) SP type SP LEN(payload) SP payload."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload: bytes, signer: Signer, payload_type: str = PAYLOAD_TYPE) -> Envelope:
    """Sign a payload."""
    return Envelope(payload, ((signer.keyid, signer.sign(pre_authentication(payload_type, payload))),), payload_type)


def signed_by(envelope: Envelope, check: Check) -> tuple[str, ...]:
    """The IDs of the keys whose signatures are valid."""
    data = pre_authentication(envelope.payload_type, envelope.payload)
    return tuple(keyid for keyid, signature in envelope.signatures if check(keyid, data, signature))


def dump(envelope: Envelope) -> bytes:
    """The envelope as JSON. Equal envelopes give equal bytes."""
    return json.dumps(
        {
            "payload": base64.b64encode(envelope.payload).decode(),
            "payloadType": envelope.payload_type,
            "signatures": [{"keyid": keyid, "sig": base64.b64encode(signature).decode()} for keyid, signature in envelope.signatures],
        },
        sort_keys=True,
    ).encode()


def parse(data: bytes) -> Envelope:
    """Parse an envelope. HostError when it is malformed."""
    try:
        value = json.loads(data)
        signatures = tuple((str(each.get("keyid", "")), base64.b64decode(each["sig"], validate=True)) for each in value["signatures"])
        return Envelope(base64.b64decode(value["payload"], validate=True), signatures, str(value["payloadType"]))
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise HostError(f"not a DSSE envelope: {error}", hint="sign the image again", code="attest.invalid-envelope") from error
