"""What a request asks: service, region, action, parameters as botocore's models name them."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

SCOPE = re.compile(r"Credential=(?P<key>[^/,]+)/(?P<date>\d+)/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")


@dataclass(frozen=True)
class Asked:
    """`service` is the signing name ("ec2", "autoscaling", "ssm", "ebs", "sts", "servicequotas", "kms", "iam")."""

    service: str
    region: str
    action: str
    key: str  # the access key id
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As IAM and CloudTrail write it: "ec2:RunInstances"."""
        return f"{self.service}:{self.action}"


def body_of(environ: dict[str, Any]) -> bytes:
    """The request's body, which stays readable for whoever comes next."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length) if length else b""
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def parse(environ: dict[str, Any]) -> Asked | None:
    """None for what is no signed AWS request."""
    found = SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    if not found:
        return None
    service, region, key = found["service"], found["region"], found["key"]
    body = body_of(environ)
    action, parameters = _parsed(service, environ, body)
    return Asked(service, region, action, key, parameters)


def _parsed(service: str, environ: dict[str, Any], body: bytes) -> tuple[str, dict[str, Any]]:
    from moto.core.parse import PROTOCOL_PARSERS
    from moto.core.request import Request, determine_request_protocol
    from moto.core.routing import get_service_router
    from moto.core.utils import get_service_model

    name = {"servicequotas": "service-quotas"}.get(service, service)
    model = get_service_model(name)
    request = Request(dict(environ, **{"wsgi.input": io.BytesIO(body)}))
    uri: dict[str, Any] = {}
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    form = parse_qs(body.decode("latin-1")) if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded") else {}
    if target:
        action = target.rsplit(".", 1)[-1]
    elif "Action" in form:
        action = form["Action"][0]
    else:
        operation, uri = get_service_router(name).match(request)
        action = operation.name
    protocol = determine_request_protocol(model, request.content_type)
    parser = PROTOCOL_PARSERS[protocol](model.operation_model(action), map_type=dict)
    parsed = parser.parse(
        {
            "method": request.method,
            "values": request.values,
            "headers": request.headers,
            "body": body,
            "url_path": request.path,
            "url_params": uri,
        }
    )
    return action, {str(name): value for name, value in dict(parsed).items() if value is not None}
