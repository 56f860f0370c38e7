"""Whether a policy allows a request: IAM's evaluation of identity policies, as far as bake's policy needs it.

A request is one or several checks, each an action on resources with a context of condition keys:
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html. What one request needs beside its own action
(tags that
are made with a resource need ec2:CreateTags, an instance profile needs iam:PassRole, a key its use) is in `implied`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.ec2.asked import Asked
from tests.ec2.iam_resources import resources_of, tag_specifications
from tests.ec2.refusals import Refused
from tests.ec2.world import ACCOUNT, World

Context = dict[str, list[str]]


@dataclass(frozen=True)
class Check:
    """One action on one resource."""

    action: str
    resource: str = "*"
    context: Context = field(default_factory=dict)


def refusal(world: World, asked: Asked) -> Refused | None:
    """None when the policy in the settings allows all that the request needs."""
    policy = world.settings.policy
    if policy is None or asked.name == "sts:GetCallerIdentity":  # which needs no permission
        return None
    for check in checks(asked):
        if not allowed(policy, check):
            told = ", ".join(f"{name}={'|'.join(values)}" for name, values in sorted(check.context.items()))
            message = f"not authorized to perform: {check.action} on resource: {check.resource} with {told}"
            code = {"ec2": "UnauthorizedOperation", "autoscaling": "AccessDenied", "iam": "AccessDenied", "sts": "AccessDenied"}
            return Refused(code.get(asked.service, "AccessDeniedException"), message, 403, Reason="UNAUTHORIZED_ACCOUNT")
    return None


def checks(asked: Asked) -> Iterator[Check]:
    """All that a request needs."""
    common = {"aws:requestedregion": [asked.region]}
    for resource, context in resources_of(asked):
        yield Check(asked.name, resource, common | context)
    yield from implied(asked, common)


def implied(asked: Asked, common: Context) -> Iterator[Check]:
    wanted = asked.parameters
    for kind, tags in tag_specifications(asked).items():
        arn = f"arn:aws:ec2:{asked.region}:{ACCOUNT if kind not in ('image', 'snapshot') else ''}:{kind}/*"
        keys = {"ec2:createaction": [asked.action], "aws:tagkeys": list(tags)} | {
            f"aws:requesttag/{key.lower()}": [value] for key, value in tags.items()
        }
        yield Check("ec2:CreateTags", arn, common | keys)
    profile = wanted.get("IamInstanceProfile") or {}
    for role in _roles(profile) if profile else ():
        yield Check("iam:PassRole", role, common | {"iam:passedtoservice": ["ec2.amazonaws.com"]})
    keys = {wanted[name] for name in ("KmsKeyId", "KmsKeyArn") if wanted.get(name)}
    keys |= {one["Ebs"]["KmsKeyId"] for one in wanted.get("BlockDeviceMappings") or [] if (one.get("Ebs") or {}).get("KmsKeyId")}
    for key in sorted(keys):
        for action in ("kms:DescribeKey", "kms:CreateGrant", "kms:GenerateDataKeyWithoutPlaintext"):
            context = {"kms:viaservice": [f"ec2.{asked.region}.amazonaws.com"], "kms:grantisforawsresource": ["true"]}
            yield Check(action, _key_arn(asked.region, key), common | context)
    template = wanted.get("LaunchTemplate") or (wanted.get("DesiredConfiguration") or {}).get("LaunchTemplate")
    if asked.service == "autoscaling" and template:  # auto scaling tries a dry run as the caller
        name = template.get("LaunchTemplateId") or template.get("LaunchTemplateName")
        arn = f"arn:aws:ec2:{asked.region}:{ACCOUNT}:launch-template/{name}"
        yield Check("ec2:RunInstances", "*", common | {"ec2:launchtemplate": [arn]})
    if asked.name == "ssm:PutParameter" and wanted.get("DataType") == "aws:ec2:image":
        yield Check("ec2:DescribeImages", "*", common)


def _roles(profile: dict[str, Any]) -> list[str]:
    from moto.ec2.utils import filter_iam_instance_profiles

    try:
        found = filter_iam_instance_profiles(ACCOUNT, "aws", profile.get("Arn"), profile.get("Name"))
    except Exception:
        return []
    return [role.arn for role in found.roles] if found else []


def _key_arn(region: str, key: str) -> str:
    from tests.ec2.images import kms_key

    return kms_key(region, key) or f"arn:aws:kms:{region}:{ACCOUNT}:key/{key}"


def allowed(policy: dict[str, Any], check: Check) -> bool:
    """Some statement allows it and none denies it."""
    statements = policy["Statement"] if isinstance(policy["Statement"], list) else [policy["Statement"]]
    effects = {statement["Effect"] for statement in statements if _applies(statement, check)}
    return "Allow" in effects and "Deny" not in effects


def _applies(statement: dict[str, Any], check: Check) -> bool:
    if "NotAction" in statement or "NotResource" in statement:
        raise ValueError("NotAction and NotResource are not read here")
    actions, resources = _listed(statement["Action"]), _listed(statement.get("Resource", "*"))
    if not any(fnmatch.fnmatchcase(check.action.lower(), action.lower()) for action in actions):
        return False
    if not any(_like(check.resource, resource) for resource in resources):
        return False
    return all(_holds(operator, keys, check.context) for operator, keys in statement.get("Condition", {}).items())


def _listed(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def _like(value: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(value, pattern.replace("[", "[[]"))


def _holds(operator: str, keys: dict[str, Any], context: Context) -> bool:
    """One operator of a Condition; all of its keys must hold."""
    base, optional = operator.removesuffix("IfExists"), operator.endswith("IfExists")
    quantifier, _, name = base.rpartition(":")
    for key, wanted in keys.items():
        values, patterns = context.get(key.lower()), _listed(wanted)
        if name == "Null":
            if (values is None) != (patterns == ["true"]):
                return False
        elif values is None:
            if not optional and quantifier != "ForAllValues" and "Not" not in name:
                return False
        elif not _compared(name, quantifier, values, patterns):
            return False
    return True


def _compared(name: str, quantifier: str, values: list[str], patterns: list[str]) -> bool:
    same: dict[str, Any] = {
        "StringEquals": lambda value, pattern: value == pattern,
        "StringEqualsIgnoreCase": lambda value, pattern: value.lower() == pattern.lower(),
        "StringLike": _like,
        "ArnLike": _like,
        "ArnEquals": _like,
        "Bool": lambda value, pattern: value.lower() == pattern.lower(),
        "NumericLessThanEquals": lambda value, pattern: float(value) <= float(pattern),
    }
    plain = name.replace("NotEquals", "Equals").replace("NotLike", "Like")
    if plain not in same:
        raise ValueError(f"the operator {name} is not read here")
    each = [any(same[plain](value, pattern) for pattern in patterns) for value in values]
    if plain != name:
        return not any(each)
    return all(each) if quantifier != "ForAnyValue" else any(each)
