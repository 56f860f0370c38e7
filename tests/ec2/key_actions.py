"""KMS: signatures of digests, which moto takes for messages and hashes once more."""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.ec2.refusals import Refused

RAW_BYTES = 4096


def sign(self: Any) -> str:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
    from moto.kms.responses import KmsResponse

    message = self._get_param("Message")
    if self._get_param("MessageType") != "DIGEST":
        if len(message) > RAW_BYTES:
            raise Refused("ValidationException", f"'message' must have length less than or equal to {RAW_BYTES}")
        return str(KmsResponse.moto_sign(self))
    if len(message) != 32 or self._get_param("SigningAlgorithm") != "ECDSA_SHA_256":
        raise Refused("ValidationException", "Digest is invalid length for algorithm")
    key = self.kms_backend.describe_key(self._get_param("KeyId"))
    signature = key.private_key.private_key.sign(message, ec.ECDSA(Prehashed(hashes.SHA256())))
    return json.dumps({"KeyId": key.arn, "Signature": base64.b64encode(signature).decode(), "SigningAlgorithm": "ECDSA_SHA_256"})
