"""Errors as each AWS protocol writes them, and the bodies of answers that the emulator gives by itself."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from typing import Any
from xml.sax.saxutils import escape

START = Any  # WSGI's start_response
JSON_SERVICES = frozenset({"ssm", "kms", "servicequotas", "service-quotas", "organizations", "secretsmanager"})
STATUS = {200: "OK", 201: "Created", 202: "Accepted", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 500: "Internal Server Error",
          503: "Service Unavailable"}  # fmt: skip


class Refused(Exception):
    """What the emulator refuses; `code` is AWS's."""

    def __init__(self, code: str, message: str, status: int = 400, **fields: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.fields = code, message, status, fields


def answer(start: START, status: int, body: bytes, content_type: str, headers: Iterable[tuple[str, str]] = ()) -> list[bytes]:
    lines = [("Content-Type", content_type), ("Content-Length", str(len(body))), ("x-amzn-RequestId", str(uuid.uuid4())), *headers]
    start(f"{status} {STATUS.get(status, 'Said')}", lines)
    return [body]


def answer_json(start: START, value: object, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> list[bytes]:
    return answer(start, status, json.dumps(value, default=str).encode(), "application/json", headers)


def refuse(start: START, service: str, error: Refused) -> list[bytes]:
    """The error in the protocol of the service."""
    if service == "ebs":
        body = {"message": error.message, "Message": error.message, **error.fields}
        return answer_json(start, body, error.status, [("x-amzn-ErrorType", error.code)])
    if service in JSON_SERVICES:
        body = {"__type": error.code, "message": error.message}
        return answer(start, error.status, json.dumps(body).encode(), "application/x-amz-json-1.1")
    return answer(start, error.status, _xml(service, error).encode(), "text/xml")


def _xml(service: str, error: Refused) -> str:
    code, message, request = escape(error.code), escape(error.message), uuid.uuid4()
    if service == "ec2":
        told = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        return f"<Response><Errors>{told}</Errors><RequestID>{request}</RequestID></Response>"
    return (
        f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
        f"<RequestId>{request}</RequestId></ErrorResponse>"
    )


def nothing(start: START, action: str) -> list[bytes]:
    """The answer of an EC2 action that found nothing: all of its lists are empty."""
    from moto.core.utils import get_service_model

    members = get_service_model("ec2").operation_model(action).output_shape.members
    empty = "".join(f"<{shape.serialization.get('name', name)}/>" for name, shape in members.items() if shape.type_name == "list")
    body = f"<{action}Response><requestId>{uuid.uuid4()}</requestId>{empty}</{action}Response>"
    return answer(start, 200, body.encode(), "text/xml")
