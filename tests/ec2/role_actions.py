"""AssumeRole of a role that exists, with its external id."""

from __future__ import annotations

import json
from typing import Any

from moto.iam.models import iam_backends

from tests.ec2.refusals import Refused
from tests.ec2.world import ACCOUNT


def assume_role(self: Any) -> Any:
    """moto's, for a role that is there and whose trust policy's sts:ExternalId is given. Refused otherwise, as AWS refuses both alike."""
    from moto.sts.responses import TokenResponse

    arn = self._get_param("RoleArn")
    role = next((one for one in iam_backends[ACCOUNT]["aws"].roles.values() if one.arn == arn), None)
    wanted = _external_id(role) if role is not None else None
    if role is None or (wanted is not None and self._get_param("ExternalId") != wanted):
        raise Refused("AccessDenied", f"User is not authorized to perform: sts:AssumeRole on resource: {arn}", 403)
    return TokenResponse.moto_assume_role(self)


def _external_id(role: Any) -> str | None:
    policy = json.loads(role.assume_role_policy_document or "{}")
    statements = policy.get("Statement", [])
    for statement in statements if isinstance(statements, list) else [statements]:
        found = statement.get("Condition", {}).get("StringEquals", {}).get("sts:ExternalId")
        if found is not None:
            return str(found)
    return None
