"""The resources of a request as ARNs, with the condition keys that belong to each."""

from __future__ import annotations

from typing import Any

from tests.ec2.asked import Asked
from tests.ec2.world import ACCOUNT

Found = list[tuple[str, dict[str, list[str]]]]
PREFIXES = {
    "i": "instance", "vol": "volume", "sg": "security-group", "subnet": "subnet", "ami": "image", "snap": "snapshot",
    "lt": "launch-template", "key": "key-pair", "eni": "network-interface", "sgr": "security-group-rule", "sir": "spot-instances-request",
}  # fmt: skip
FOREIGN = ("image", "snapshot")  # ARNs without an account
# actions that make something: the kinds that are made, whose ARNs end in /*
MAKES = {
    "RunInstances": ("instance", "volume", "network-interface"), "CreateImage": ("image", "snapshot"), "RegisterImage": ("image",),
    "CopyImage": ("image", "snapshot"), "CreateSnapshot": ("snapshot",), "CopySnapshot": ("snapshot",),
    "CreateSecurityGroup": ("security-group",), "ImportKeyPair": ("key-pair",), "CreateKeyPair": ("key-pair",),
    "CreateLaunchTemplate": ("launch-template",), "StartSnapshot": ("snapshot",),
}  # fmt: skip
HIDDEN = ("TagSpecifications", "Tags", "UserData", "LaunchTemplateData", "BlockData")  # ids in there are no resources of the request
# actions that know no resources at all: only "*" allows them
PLAIN = ("Describe", "Get", "List")
GET_WITH_RESOURCES = ("GetConsoleOutput", "GetSnapshotBlock", "ListSnapshotBlocks", "ListChangedBlocks", "GetParameter", "GetParameters")


def tag_specifications(asked: Asked) -> dict[str, dict[str, str]]:
    """{kind: tags} of an EC2 request that tags what it makes."""
    found: dict[str, dict[str, str]] = {}
    for one in (asked.parameters.get("TagSpecifications") or []) if asked.service == "ec2" else []:
        found.setdefault(one.get("ResourceType", ""), {}).update({tag["Key"]: tag.get("Value", "") for tag in one.get("Tags", [])})
    return found


def resources_of(asked: Asked) -> Found:
    """[(ARN, context)]; ("*", {}) for an action without resources."""
    if asked.service in ("ec2", "ebs"):
        if asked.action.startswith(PLAIN) and asked.action not in GET_WITH_RESOURCES:
            return [("*", {})]
        return _made(asked) + _named(asked) or [("*", {})]
    if asked.service == "ssm":
        names = [asked.parameters[key] for key in ("Name", "ResourceId") if key in asked.parameters] + list(
            asked.parameters.get("Names", [])
        )
        return [
            (f"arn:aws:ssm:{asked.region}:{'' if name.startswith('/aws/') else ACCOUNT}:parameter/{name.lstrip('/')}", {}) for name in names
        ]
    if asked.service == "autoscaling" and "AutoScalingGroupName" in asked.parameters and not asked.action.startswith("Describe"):
        return [_group(asked.region, asked.parameters["AutoScalingGroupName"])]
    if asked.service == "sts":
        return [(asked.parameters.get("RoleArn", "*"), {})]
    if asked.service == "kms":
        return [(f"arn:aws:kms:{asked.region}:{ACCOUNT}:key/{asked.parameters.get('KeyId', '*').rpartition('/')[2]}", {})]
    if asked.service == "iam" and "InstanceProfileName" in asked.parameters:
        return [(f"arn:aws:iam::{ACCOUNT}:instance-profile/{asked.parameters['InstanceProfileName']}", {})]
    return [("*", {})]


def _made(asked: Asked) -> Found:
    tags = tag_specifications(asked)
    market = asked.parameters.get("InstanceMarketOptions") or {}
    spot = ("spot-instances-request",) if asked.action == "RunInstances" and market.get("MarketType") == "spot" else ()
    if asked.action == "StartSnapshot":
        tags = {"snapshot": {tag["Key"]: tag["Value"] for tag in asked.parameters.get("Tags") or []}}
    found: Found = []
    for kind in MAKES.get(asked.action, ()) + spot:
        own = tags.get(kind, {})
        context = {f"aws:requesttag/{key.lower()}": [value] for key, value in own.items()} | ({"aws:tagkeys": list(own)} if own else {})
        if asked.action == "RunInstances" and kind == "instance":
            context |= {"ec2:instancetype": [str(asked.parameters.get("InstanceType", ""))]}
            tokens = (asked.parameters.get("MetadataOptions") or {}).get("HttpTokens")
            context |= {"ec2:metadatahttptokens": [tokens]} if tokens else {}
        found.append((f"{_base(asked.region, kind)}/*", context))
    return found


def _named(asked: Asked) -> Found:
    """What the request names by id, with the tags that it has."""
    found: Found = []
    ids = sorted(set(_ids(asked.parameters)))
    for name in ids:
        kind = PREFIXES[name.split("-")[0]]
        found.append((f"{_base(asked.region, kind)}/{name}", _tags(asked.region, name) | _given(asked)))
    if key := asked.parameters.get("KeyName") if asked.action not in ("ImportKeyPair", "CreateKeyPair") else None:
        found.append((f"{_base(asked.region, 'key-pair')}/{key}", _key_tags(asked.region, key)))
    return found


def _given(asked: Asked) -> dict[str, list[str]]:
    """CreateTags' own tags."""
    if asked.action not in ("CreateTags", "DeleteTags"):
        return {}
    tags = {tag["Key"]: tag.get("Value", "") for tag in asked.parameters.get("Tags") or []}
    return {f"aws:requesttag/{key.lower()}": [value] for key, value in tags.items()} | {"aws:tagkeys": list(tags)}


def _base(region: str, kind: str) -> str:
    return f"arn:aws:ec2:{region}:{'' if kind in FOREIGN else ACCOUNT}:{kind}"


def _ids(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [found for name, inner in value.items() if name not in HIDDEN for found in _ids(inner)]
    if isinstance(value, list):
        return [found for inner in value for found in _ids(inner)]
    prefix, _, rest = str(value).partition("-")
    return [str(value)] if prefix in PREFIXES and rest and all(letter in "0123456789abcdef" for letter in rest) else []


def _tags(region: str, name: str) -> dict[str, list[str]]:
    from moto.ec2.models import ec2_backends

    return {f"aws:resourcetag/{key.lower()}": [value] for key, value in dict(ec2_backends[ACCOUNT][region].tags.get(name, {})).items()}


def _key_tags(region: str, name: str) -> dict[str, list[str]]:
    from moto.ec2.models import ec2_backends

    key = ec2_backends[ACCOUNT][region].key_pairs.get(name)
    return {f"aws:resourcetag/{tag['key'].lower()}": [tag["value"]] for tag in key.get_tags()} if key else {}


def _group(region: str, name: str) -> tuple[str, dict[str, list[str]]]:
    from moto.autoscaling.models import autoscaling_backends

    group = autoscaling_backends[ACCOUNT][region].autoscaling_groups.get(name)
    tags = {f"aws:resourcetag/{tag['Key'].lower()}": [tag["Value"]] for tag in group.tags} if group else {}
    return f"arn:aws:autoscaling:{region}:{ACCOUNT}:autoScalingGroup:*:autoScalingGroupName/{name}", tags
