"""From a template to an auto-scaling group and back: the emulated EC2 with real machines behind it, under the policies in docs/."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ec2 import Emulator, machines_possible
from tests.ec2.seed import SIZE
from tests.support.cli import PROJECT, Bake, leftovers
from tests.support.until import until

pytestmark = [pytest.mark.vm, pytest.mark.skipif(bool(machines_possible()), reason=machines_possible())]
HOME, ABROAD = "eu-central-1", "eu-west-1"
TEMPLATE = PROJECT / "templates/web-ec2.yaml"
FORMER = """
schema: 1
name: web
version: 0.9.0
source: {source_ami_filter: {filters: {name: "debian-13-amd64-*"}, owners: ["136693071363"], most_recent: true}}
builder: {kind: ec2, region: eu-central-1, instance_type: t3.small}
communicator: {ssh_username: admin}
provisioners:
  - shell: echo former > /root/which
"""


def policies() -> dict[str, Any]:
    """Both shipped policies as one."""
    found = [json.loads((PROJECT / f"docs/aws/{name}-policy.json").read_text()) for name in ("build", "release")]
    return {"Version": "2012-10-17", "Statement": [statement for policy in found for statement in policy["Statement"]]}


@pytest.fixture
def cloud(tmp_path: Path, ec2_cloud_init_seed: Path) -> Iterator[Emulator]:
    with Emulator(tmp_path / "cloud", machines=True) as cloud:
        cloud.seed_image(disk=ec2_cloud_init_seed, size=SIZE)
        cloud.use_policy(policies())
        yield cloud
        assert (cloud.unread, cloud.denied) == ([], [])


@pytest.fixture
def bake(cloud: Emulator, tmp_path: Path) -> Bake:
    return Bake(tmp_path / "home", cloud.env)


def group(cloud: Emulator, image: str) -> None:
    """What an operator has: a security group that shows the page, a launch template, an auto-scaling group of one instance."""
    ec2 = cloud.client("ec2")
    web = ec2.create_security_group(GroupName="web", Description="web")["GroupId"]
    rule = {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "127.0.0.1/32"}]}
    ec2.authorize_security_group_ingress(GroupId=web, IpPermissions=[rule])
    data = {"ImageId": image, "InstanceType": "t3.small", "SecurityGroupIds": [web], "MetadataOptions": {"HttpTokens": "required"}}
    ec2.create_launch_template(LaunchTemplateName="web", LaunchTemplateData=data)
    cloud.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName="web-prod",
        LaunchTemplate={"LaunchTemplateName": "web", "Version": "1"},
        MinSize=0,
        MaxSize=2,
        DesiredCapacity=1,
        AvailabilityZones=[f"{HOME}a"],
    )


def running(cloud: Emulator) -> list[tuple[str, str]]:
    """(AMI, address) of the instances of the group that serve."""
    groups = cloud.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=["web-prod"])["AutoScalingGroups"]
    ids = [one["InstanceId"] for one in groups[0]["Instances"] if one["LifecycleState"] == "InService"]
    found = cloud.client("ec2").describe_instances(InstanceIds=ids)["Reservations"] if ids else []
    return [(one["ImageId"], one.get("PublicIpAddress", "")) for reservation in found for one in reservation["Instances"]]


def page(address: str, seconds: float = 240.0) -> str:
    """What the web server says, once it is up."""
    answers: list[str] = []

    def answered() -> bool:
        try:
            with urllib.request.urlopen(f"http://{address}/", timeout=5) as answer:
                answers.append(str(answer.read().decode()))
        except OSError:
            return False
        return True

    until(answered, seconds, f"http://{address}/ answers", pause=1)
    return answers[0]


def own_images(cloud: Emulator, region: str) -> dict[str, str]:
    """Name -> id of the account's AMIs in a region."""
    return {image["Name"]: image["ImageId"] for image in cloud.client("ec2", region).describe_images(Owners=["self"])["Images"]}


@pytest.mark.timeout(5400)  # the base and the seed may be baked for it first
def test_from_a_template_to_a_group_and_back(cloud: Emulator, bake: Bake, tmp_path: Path) -> None:
    former = tmp_path / "former.yaml"
    former.write_text(FORMER)
    bake("build", former, "--skip-verify").ok()
    bake("channel", "web", "prod", "--set", "web@0.9.0", "--why", "the first").ok()
    (old,) = own_images(cloud, HOME).values()
    group(cloud, old)
    bake("release", "web", "prod", "--to", "asg/web-prod", "--min-healthy", "0", "--warm-up", "0s", timeout=600).ok()

    built = bake("build", TEMPLATE, "--json", timeout=2400).ok()
    assert {event["outcome"] for event in built.events if event["event"] == "test_finished"} == {"passed"}
    homes, abroad = own_images(cloud, HOME), own_images(cloud, ABROAD)
    new = next(image for name, image in homes.items() if name.startswith("web-1.0.0-"))
    assert [name.startswith("web-1.0.0-") for name in abroad] == [True]
    assert bake("resolve", "web@1.0.0", "--region", ABROAD).ok().out.strip() == next(iter(abroad.values()))
    image = bake("show", "web@1.0.0", "--json").ok().json
    assert json.dumps(image).count(new) >= 1

    bake("channel", "web", "prod", "--set", "web@1.0.0", "--why", "the page").ok()
    bake("release", "web", "prod", "--to", "asg/web-prod", "--min-healthy", "0", "--warm-up", "0s", timeout=600).ok()
    ((ami, address),) = running(cloud)
    assert ami == new
    assert "Freshly baked" in page(address)

    bake("rollback", "web", "--why", "a drill", timeout=600).ok()
    ((ami, _),) = running(cloud)
    assert ami == old
    releases = bake("releases", "web", "--json").ok().json
    assert [one["status"] for one in releases] == ["succeeded"] * 3

    refused = bake("rm", "web@1.0.0")  # the channel points to it
    assert refused.code != 0 and "prod" in refused.err
    left = {key: kinds for key, kinds in cloud.inventory()[HOME].items() if key in ("key-pairs", "security-groups", "instances")}
    assert left["instances"] and "bake:build" not in json.dumps(left), left  # the group's instance alone
    assert leftovers(bake.home) == []
