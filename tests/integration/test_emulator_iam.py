"""A policy decides over bake's calls in the emulator: actions, resources, tags."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.ec2 import Emulator

TAGGED = {"StringEquals": {"aws:RequestTag/made-by": "bake"}}
OWN = {"StringEquals": {"aws:ResourceTag/made-by": "bake"}}
POLICY: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": ["ec2:Describe*"], "Resource": "*"},
        {"Effect": "Allow", "Action": "ec2:RunInstances", "Resource": ["arn:aws:ec2:*::image/*", "arn:aws:ec2:*:*:volume/*",
        "arn:aws:ec2:*:*:network-interface/*"]},
        {"Effect": "Allow", "Action": "ec2:RunInstances", "Resource": "arn:aws:ec2:*:*:instance/*", "Condition": TAGGED},
        {"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": "*",
        "Condition": {"StringEquals": {"ec2:CreateAction": ["RunInstances"]}}},
        {"Effect": "Allow", "Action": "ec2:TerminateInstances", "Resource": "*", "Condition": OWN},
        {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": {"StringNotEquals": {"aws:RequestedRegion": ["eu-central-1"]}}},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("cloud"), delay=0.01) as found:
        yield found


@pytest.fixture
def cloud(emulator: Emulator) -> Iterator[Emulator]:
    emulator.reset()
    emulator.use_policy(POLICY)
    yield emulator
    emulator.use_policy(None)


def run(ec2: Any, image: str, **tags: str) -> str:
    given = (
        [{"ResourceType": "instance", "Tags": [{"Key": key.replace("_", "-"), "Value": value} for key, value in tags.items()]}]
        if tags
        else []
    )
    wanted = {"ImageId": image, "InstanceType": "t3.small", "MinCount": 1, "MaxCount": 1, "TagSpecifications": given}
    return str(ec2.run_instances(**wanted)["Instances"][0]["InstanceId"])


def denied(what: str) -> Any:
    return pytest.raises(ClientError, match=f"UnauthorizedOperation.*{what}")


def test_what_is_allowed_goes(cloud: Emulator) -> None:
    ec2 = cloud.as_bake("ec2")
    instance = run(ec2, cloud.seed_image(), made_by="bake")
    ec2.terminate_instances(InstanceIds=[instance])
    assert cloud.denied == []
    cloud.as_bake("sts").get_caller_identity()


def test_what_is_not_allowed_does_not(cloud: Emulator) -> None:
    ec2, image = cloud.as_bake("ec2"), cloud.seed_image()
    with denied("ec2:RunInstances on resource: arn:aws:ec2:eu-central-1:123456789012:instance"):
        run(ec2, image)
    with denied("instance"):
        run(ec2, image, made_by="somebody")
    with denied("ec2:CreateSecurityGroup"):
        ec2.create_security_group(GroupName="g", Description="d")
    with denied("ec2:CreateTags"):
        ec2.create_tags(Resources=[image], Tags=[{"Key": "a", "Value": "b"}])
    foreign = cloud.client("ec2").run_instances(ImageId=image, InstanceType="t3.small", MinCount=1, MaxCount=1)["Instances"][0][
        "InstanceId"
    ]
    with denied("ec2:TerminateInstances"):
        ec2.terminate_instances(InstanceIds=[foreign])
    with denied("with aws:requestedregion=eu-west-1"):
        cloud.as_bake("ec2", "eu-west-1").describe_instances()
    with pytest.raises(ClientError, match="AccessDeniedException"):
        cloud.as_bake("ssm").get_parameter(Name="/x")
    assert len(cloud.denied) == 7


def test_an_instance_profile_needs_pass_role(cloud: Emulator) -> None:
    iam = cloud.client("iam")
    iam.create_role(RoleName="r", AssumeRolePolicyDocument="{}")
    iam.create_instance_profile(InstanceProfileName="p")
    iam.add_role_to_instance_profile(InstanceProfileName="p", RoleName="r")
    with denied("iam:PassRole on resource: arn:aws:iam::123456789012:role/r"):
        cloud.as_bake("ec2").run_instances(
            ImageId=cloud.seed_image(), InstanceType="t3.small", MinCount=1, MaxCount=1, IamInstanceProfile={"Name": "p"},
            TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "made-by", "Value": "bake"}]}],
        )  # fmt: skip
