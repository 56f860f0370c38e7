"""Builds on EC2, against the emulator over HTTP, with guests that are fake."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from baker.core.errors import BakeError, BuildError, Interrupted, NotFoundError, SourceError, StepError
from baker.core.model import BootOptions
from baker.machines.ec2.check import STANDARD
from baker.publish.withdraw import withdraw
from baker.sessions.ephemeral import boot
from tests.ec2 import Emulator
from tests.support.cloud import COPIES, REGION, Yard, yard

ONE_REGION, FOUR_COPIES = 30, 42  # API calls of a clean build at most


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("cloud"), delay=0.0) as cloud:
        yield cloud


@pytest.fixture
def shop(cloud: Emulator, tmp_path: Path) -> Iterator[Yard]:
    with yard(cloud, tmp_path) as shop:
        yield shop
        assert cloud.unread == []


def refused(shop: Yard, builder: str = "", kind: type[BakeError] = BuildError, *, code: str = "", **options: Any) -> str:
    """Run a build that must fail, with an error of `kind` and with `code`, and must leave nothing. Returns its message."""
    before = shop.cloud.inventory()
    with pytest.raises(kind) as caught:
        shop.bake(builder, **options)
    assert (shop.cloud.inventory(), shop.ledgers()) == (before, [])
    assert code in ("", caught.value.code)
    return str(caught.value)


def asked(shop: Yard, action: str) -> list[dict[str, Any]]:
    return [call["parameters"] for call in shop.cloud.calls if call["action"] == action]


# --- what comes out -------------------------------------------------------------------------------------------------------


def test_a_build_ends_with_amis_on_record_and_nothing_else(shop: Yard) -> None:
    image = shop.bake("ami_regions: [eu-west-1], tags: {team: shop}").image
    assert image is not None
    assert (image.builder, image.chain, image.size, image.verified) == ("ec2", (), 0, True)
    assert (image.virtual_size, image.digest[:7]) == (8 << 30, "sha256:")
    published = shop.catalog.publications(image.id)
    assert [(each.kind, each.region, each.account) for each in published] == [
        ("ami", REGION, "123456789012"),
        ("ami", "eu-west-1", "123456789012"),
    ]
    inventory = shop.cloud.inventory()
    for each in published:
        found = inventory[each.region]["images"][each.reference]
        assert found["name"] == f"web-1.0.0-{image.build}" == each.details["name"]
        tags = {"Name": found["name"], "bake:build": image.build, "bake:name": "web", "bake:version": "1.0.0", "team": "shop"}
        assert found["tags"] == tags == inventory[each.region]["snapshots"][each.snapshots[0]]["tags"]
    assert {region: set(kinds) for region, kinds in inventory.items()} == {
        region: {"images", "snapshots"} for region in (REGION, "eu-west-1")
    }
    assert shop.ledgers() == []


def test_a_signal_just_behind_the_commit_takes_nothing_away(shop: Yard) -> None:
    shop.signal_after = "record"
    with pytest.raises(Interrupted):
        shop.bake()
    (image,) = shop.catalog.images()
    assert shop.catalog.build(image.build).status == "built"
    assert [each.reference for each in shop.catalog.publications(image.id)] == list(shop.cloud.inventory()[REGION]["images"])
    assert shop.ledgers() == []


def test_the_record_says_how_it_was_made(shop: Yard) -> None:
    image = shop.bake("instance_type: [t3.micro, t3.small]").image
    assert image is not None
    build = shop.catalog.build(image.build)
    pins = build.source["pins"]
    assert (pins["ami"], pins["region"], pins["owner"]) == (shop.ami, REGION, "136693071363")
    assert (pins["name"], pins["creation_date"][:3]) == ("debian-13-amd64-20261101-1", "202")
    assert (build.machine["machine_type"], build.machine["connection"][:16]) == ("t3.micro", f"ec2:{REGION}")
    assert build.shape["instance_type"] == ["t3.micro", "t3.small"]
    assert {"check", "launch", "capture", "verify", "publish"} <= set(build.timings)


def test_verification_runs_on_a_new_instance_of_the_new_image(shop: Yard) -> None:
    image = shop.bake().image
    assert image is not None
    first, second = asked(shop, "RunInstances")
    assert first["ImageId"] == shop.ami
    assert second["ImageId"] == shop.catalog.publications(image.id)[0].reference
    assert first["KeyName"] != second["KeyName"] and len(shop.guests.seen) == 2


def test_a_failed_verification_leaves_no_image(shop: Yard) -> None:
    shop.tests_pass = False
    assert "1 of 1 tests failed, so the image is not registered" in refused(shop, "ami_regions: [eu-west-1]", BakeError)
    assert shop.catalog.images() == [] and "CopyImage" not in shop.actions()


def test_a_failed_step_leaves_nothing(shop: Yard) -> None:
    shop.guests.fail = "step-1"
    assert "step" in refused(shop, kind=StepError)


def test_abort_leaves_the_instance_and_sweeping_takes_it(shop: Yard) -> None:
    before = shop.cloud.inventory()
    shop.guests.fail = "step-1"
    with pytest.raises(StepError, match="step"):
        shop.bake(on_error="abort")
    assert {"instances", "key-pairs", "security-groups", "volumes"} <= set(shop.cloud.inventory()[REGION])
    assert [each.error for each in shop.sweep() if each.error] == []
    assert shop.cloud.inventory() == before


def test_the_same_template_again_is_not_built_again(shop: Yard) -> None:
    first = shop.bake()
    shop.cloud.clear_calls()
    again = shop.bake()
    assert (again.unchanged, again.image) == (True, first.image)
    assert shop.actions() == ["DescribeImages"] * 2, "the source, and whether the image is still there"
    assert not shop.bake("ami_regions: [eu-west-1]").unchanged
    assert first.image is not None
    shop.cloud.client("ec2").deregister_image(ImageId=shop.catalog.publications(first.image.id)[0].reference)
    assert not shop.bake().unchanged, "somebody has deregistered it"


# --- how an instance is asked for -------------------------------------------------------------------------------------------


def test_an_instance_is_asked_for_safely(shop: Yard) -> None:
    shop.bake("volume_size: 16GiB, iops: 4000, throughput: 200, run_tags: {cost: build}")
    wanted = asked(shop, "RunInstances")[0]
    assert wanted["MetadataOptions"] == {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    ebs = wanted["BlockDeviceMappings"][0]["Ebs"]
    assert ebs == {"DeleteOnTermination": True, "VolumeType": "gp3", "Encrypted": True, "VolumeSize": 16, "Iops": 4000, "Throughput": 200}
    kinds = {each["ResourceType"]: {tag["Key"]: tag["Value"] for tag in each["Tags"]} for each in wanted["TagSpecifications"]}
    assert set(kinds) == {"instance", "volume", "network-interface"}
    assert all(tags["cost"] == "build" and tags["bake:machine"] == "build" for tags in kinds.values())
    assert wanted["ClientToken"].endswith("-build-1")
    data = base64.b64decode(wanted["UserData"]).decode()
    assert data.startswith("#cloud-config\n") and "ed25519_private" in data
    group = asked(shop, "AuthorizeSecurityGroupIngress")[0]["IpPermissions"][0]
    assert [each["CidrIp"] for each in group["IpRanges"]] == ["127.0.0.1/32"], "the address as an AWS on this host sees it"


def test_every_volume_goes_with_its_instance_whatever_the_ami_says(shop: Yard) -> None:
    ebs = {"VolumeSize": 1, "DeleteOnTermination": False}
    client = shop.cloud.client("ec2")
    snapshot = client.describe_images(ImageIds=[shop.ami])["Images"][0]["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    source = client.register_image(
        Name="two-volumes",
        Architecture="x86_64",
        RootDeviceName="/dev/xvda",
        VirtualizationType="hvm",
        EnaSupport=True,
        BlockDeviceMappings=[
            {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}},
            {"DeviceName": "/dev/sdf", "Ebs": ebs},
        ],
    )["ImageId"]
    shop.bake(template=shop.template(source=f"{{ami: {source}}}"))
    assert asked(shop, "RunInstances")[0]["BlockDeviceMappings"][1] == {
        "DeviceName": "/dev/sdf",
        "Ebs": {"DeleteOnTermination": True, "Encrypted": True},
    }
    assert set(shop.cloud.inventory()[REGION]) == {"images", "snapshots"}


def test_a_vpc_alone_gives_one_of_its_subnets(shop: Yard) -> None:
    client = shop.cloud.client("ec2")
    vpc = client.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
    said = refused(shop, f"vpc_id: {vpc}", code="ec2.no-subnet")
    assert REGION in said and vpc in said
    subnet = client.create_subnet(VpcId=vpc, CidrBlock="10.7.1.0/24")["Subnet"]["SubnetId"]
    shop.bake(f"vpc_id: {vpc}, associate_public_ip_address: true")
    assert {each["NetworkInterfaces"][0]["SubnetId"] for each in asked(shop, "RunInstances")} == {subnet}


def test_user_data_of_the_template_comes_after_bakes(shop: Yard) -> None:
    shop.bake("user_data: '#!/bin/sh'")
    data = base64.b64decode(asked(shop, "RunInstances")[0]["UserData"]).decode()
    assert data.startswith("Content-Type: multipart/mixed") and data.count("Content-Transfer-Encoding") == 2


def test_another_type_and_subnet_is_tried_where_there_is_no_capacity(shop: Yard) -> None:
    subnets = [each["SubnetId"] for each in shop.cloud.client("ec2").describe_subnets()["Subnets"]][:2]
    shop.cloud.faults.add("RunInstances", "InsufficientInstanceCapacity", times=3)
    shop.bake(f"instance_type: [t3.micro, t3.small], subnet_id: [{', '.join(subnets)}]")
    tried = [(each["InstanceType"], each["SubnetId"]) for each in asked(shop, "RunInstances")[:4]]
    assert tried == [("t3.micro", subnets[0]), ("t3.micro", subnets[1]), ("t3.small", subnets[0]), ("t3.small", subnets[1])]
    assert "no capacity for t3.micro" in shop.said


def test_no_capacity_anywhere_says_what_was_tried(shop: Yard) -> None:
    shop.cloud.faults.add("RunInstances", "InsufficientInstanceCapacity", times=9)
    said = refused(shop, "instance_type: [t3.micro, t3.small]", code="ec2.no-capacity")
    assert "t3.micro" in said and "t3.small" in said and "sufficient capacity" in said


def test_spot_is_captured_and_its_request_cancelled(shop: Yard) -> None:
    shop.bake("spot: {max_price: '0.05', fallback: on_demand}")
    market = asked(shop, "RunInstances")[0]["InstanceMarketOptions"]
    assert (market["MarketType"], market["SpotOptions"]["MaxPrice"]) == ("spot", "0.05")
    assert set(shop.cloud.inventory()[REGION]) == {"images", "snapshots"}


def test_spot_falls_back_to_on_demand_where_it_may(shop: Yard) -> None:
    shop.cloud.faults.add("RunInstances", "InsufficientInstanceCapacity")
    shop.bake("spot: {fallback: on_demand}")
    assert "InstanceMarketOptions" not in asked(shop, "RunInstances")[1]


@pytest.mark.parametrize(
    ("builder", "proxy"),
    [
        ("ssh_bastion_host: jump.example.org, ssh_bastion_username: me", "ssh -o BatchMode=yes -p 22 -W '[%h]:%p' -- me@jump.example.org"),
        ("ssh_interface: session_manager", "aws ssm start-session --target i-"),
    ],
)
def test_ways_in_that_go_through_something(shop: Yard, builder: str, proxy: str) -> None:
    shop.bake(builder)
    assert (shop.guests.seen[0].proxy_command or "").startswith(proxy)
    if "session_manager" in builder:
        assert asked(shop, "AuthorizeSecurityGroupIngress") == []


def test_a_private_address_is_reached_from_the_vpc(shop: Yard) -> None:
    shop.bake("ssh_interface: private_ip, associate_public_ip_address: false")
    assert shop.guests.seen[0].host.startswith("172.31.")
    assert asked(shop, "AuthorizeSecurityGroupIngress")[0]["IpPermissions"][0]["IpRanges"][0]["CidrIp"] == "172.31.0.0/16"


def test_a_role_is_assumed_with_its_external_id(shop: Yard) -> None:
    who = {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:root"}, "Action": "sts:AssumeRole"}
    who["Condition"] = {"StringEquals": {"sts:ExternalId": "shop"}}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [who]})
    arn = shop.cloud.client("iam").create_role(RoleName="baker", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    shop.bake(f"assume_role: {{role_arn: '{arn}', external_id: shop}}")
    assert asked(shop, "AssumeRole")[0]["ExternalId"] == "shop"


# --- what is known beforehand -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("builder", "code", "facts"),
    [
        ("instance_type: t4g.micro", "ec2.architecture", ("t4g.micro", "arm64")),
        ("instance_type: t3.enormous", "ec2.unknown-instance-type", ("t3.enormous",)),
        ("volume_size: 4GiB", "ec2.volume-too-small", ("volume_size", "4 GiB", "8 GiB")),
        ("deprecate_at: '2020-01-01T00:00:00Z'", "ec2.deprecation-in-past", ("deprecate_at", "2020-01-01T00:00:00Z")),
        ("subnet_filter: {filters: {'tag:tier': build}}", "ec2.no-subnet", (REGION, "builder.subnet_filter")),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(shop: Yard, builder: str, code: str, facts: tuple[str, ...]) -> None:
    said = refused(shop, builder, code=code)
    assert all(fact in said for fact in facts)
    assert not {"ImportKeyPair", "CreateSecurityGroup", "RunInstances"} & set(shop.actions())


def test_a_name_that_is_too_long_once_it_is_filled_in_is_refused(shop: Yard) -> None:
    template = shop.template(f"ami_name: '{{name}}-{'x' * 118}-{{version}}'", version="1.0.10")
    assert "129 characters" in refused(shop, template=template, code="aws.ami-name")
    assert "ImportKeyPair" not in shop.actions()


def test_a_disabled_image_keeps_its_name(shop: Yard) -> None:
    image = shop.bake("ami_name: 'web-{version}'").image
    assert image is not None
    shop.cloud.client("ec2").disable_image(ImageId=shop.catalog.publications(image.id)[0].reference)
    assert "web-1.0.0" in refused(shop, "ami_name: 'web-{version}'", code="ec2.ami-name-taken", force=True)


@pytest.mark.parametrize(
    ("name", "counts"), [("m7i.large", 1), ("im4gn.large", 1), ("dl1.24xlarge", 0), ("mac2.metal", 0), ("inf2.xlarge", 0)]
)
def test_only_standard_families_share_the_quota(name: str, counts: bool) -> None:
    assert bool(STANDARD.match(name)) == counts


def test_a_description_is_what_aws_takes(shop: Yard) -> None:
    shop.bake("ami_description: Café")
    assert asked(shop, "CreateImage")[0]["Description"] == "Caf?"


def test_a_name_that_is_taken_in_any_target_region_is_refused(shop: Yard) -> None:
    shop.bake("ami_name: 'web-{version}', ami_regions: [eu-west-1]")
    shop.cloud.client("ec2").deregister_image(ImageId=shop.catalog.publications(shop.catalog.images()[0].id)[0].reference)
    said = refused(shop, "ami_name: 'web-{version}', ami_regions: [eu-west-1]", force=True)
    assert "there is an AMI web-1.0.0 in eu-west-1 already" in said


# --- copies, and who may use them ---------------------------------------------------------------------------------------------


def test_an_image_is_shared_and_protected_everywhere(shop: Yard) -> None:
    image = shop.bake(
        "encrypted: false, ami_regions: [eu-west-1], ami_users: ['111122223333'], snapshot_users: ['444455556666'], "
        "ami_org_arns: ['arn:aws:organizations::123456789012:organization/o-123example'], deprecate_after: 90d, "
        "deregistration_protection: true, imds_support: v2.0"
    ).image
    assert image is not None
    for each in shop.catalog.publications(image.id):
        client = shop.cloud.client("ec2", each.region)
        granted = client.describe_image_attribute(ImageId=each.reference, Attribute="launchPermission")["LaunchPermissions"]
        assert {"UserId": "111122223333"} in granted and len(granted) == 2
        found = client.describe_images(ImageIds=[each.reference])["Images"][0]
        assert (found["ImdsSupport"], found["DeregistrationProtection"][:7]) == ("v2.0", "enabled") and found["DeprecationTime"]
        accounts = client.describe_snapshot_attribute(SnapshotId=each.snapshots[0], Attribute="createVolumePermission")
        assert {user["UserId"] for user in accounts["CreateVolumePermissions"]} == {"111122223333", "444455556666"}


def test_a_clean_build_asks_no_more_than_it_needs(shop: Yard) -> None:
    shop.bake()
    one = Counter(shop.actions())
    shop.cloud.clear_calls()
    shop.bake(f"ami_regions: [{', '.join(COPIES)}]")
    four = Counter(shop.actions())
    assert one.total() <= ONE_REGION, one
    assert four.total() <= FOUR_COPIES, four


# --- images of before -----------------------------------------------------------------------------------------------------------


def test_an_image_of_the_catalog_is_a_source(shop: Yard) -> None:
    base = shop.bake().image
    assert base is not None
    child = shop.bake(template=shop.template(source="{image: web}", name="shop")).image
    assert child is not None and child.parent == base.id
    assert shop.catalog.build(child.build).source["pins"]["ami"] == shop.catalog.publications(base.id)[0].reference


def test_an_image_that_is_not_in_the_region_is_no_source(shop: Yard) -> None:
    shop.bake()
    template = shop.template(source="{image: web}", name="shop")
    elsewhere = template.builder.model_copy(update={"region": "us-east-1"})
    with pytest.raises(NotFoundError, match="us-east-1") as error:
        shop.bake(template=replace(template, builder=elsewhere))
    assert error.value.code == "image.no-ami-in-region"


def test_a_throw_away_machine_runs_an_image_and_is_gone(shop: Yard) -> None:
    image = shop.bake().image
    assert image is not None
    before = shop.cloud.inventory()
    with boot(shop.services(), image, shop.catalog.build(image.build).shape, BootOptions()) as running:
        assert running.title == "web 1.0.0"
        assert asked(shop, "RunInstances")[-1]["ImageId"] == shop.catalog.publications(image.id)[0].reference
    assert (shop.cloud.inventory(), shop.ledgers()) == (before, [])


def test_removing_an_image_takes_its_amis_and_snapshots(shop: Yard) -> None:
    before = shop.cloud.inventory()
    image = shop.bake("ami_regions: [eu-west-1], deregistration_protection: true").image
    assert image is not None
    withdraw(image, shop.catalog, shop.builder)
    assert shop.cloud.inventory() == before
    assert shop.catalog.publications(image.id) == []


def test_removing_an_image_that_somebody_disabled_or_deregistered_takes_it_all_the_same(shop: Yard) -> None:
    before = shop.cloud.inventory()
    image = shop.bake("ami_regions: [eu-west-1]").image
    assert image is not None
    here, there = shop.catalog.publications(image.id)
    shop.cloud.client("ec2").disable_image(ImageId=here.reference)
    shop.cloud.client("ec2", there.region).deregister_image(ImageId=there.reference)
    withdraw(image, shop.catalog, shop.builder)
    assert shop.cloud.inventory() == before


# --- sources ----------------------------------------------------------------------------------------------------------------------


def test_a_filter_finds_the_last_one(shop: Yard) -> None:
    newer = shop.cloud.seed_image("debian-13-amd64-20261115-1", created="2036-11-15T00:00:00.000Z")
    wanted = "filters: {name: 'debian-13-amd64-*', architecture: x86_64}, owners: ['136693071363']"
    image = shop.bake(template=shop.template(source=f"{{source_ami_filter: {{{wanted}, most_recent: true}}}}")).image
    assert image is not None and shop.catalog.build(image.build).source["pins"]["ami"] == newer
    with pytest.raises(SourceError, match=f"2 AMIs in eu-central-1 (?s:.*){newer}") as ambiguous:
        shop.bake(template=shop.template(source=f"{{source_ami_filter: {{{wanted}}}}}"))
    assert ambiguous.value.code == "source.ami-ambiguous"
    with pytest.raises(SourceError, match="eu-central-1") as no_match:
        shop.bake(template=shop.template(source="{source_ami_filter: {filters: {name: 'x-*'}, owners: [self]}}"))
    assert no_match.value.code == "source.ami-no-match"


def test_a_parameter_names_the_source(shop: Yard) -> None:
    shop.cloud.seed_parameter("/aws/service/debian/release/13/latest/amd64", shop.ami)
    image = shop.bake(template=shop.template(source="{ssm_parameter: /aws/service/debian/release/13/latest/amd64}")).image
    assert image is not None and shop.catalog.build(image.build).source["pins"]["ami"] == shop.ami
    with pytest.raises(SourceError, match="/aws/nothing") as missing:
        shop.bake(template=shop.template(source="{ssm_parameter: /aws/nothing}"))
    assert missing.value.code == "source.ssm-parameter"


def test_an_ami_that_is_not_there_is_a_source_error(shop: Yard) -> None:
    with pytest.raises(SourceError, match="ami-0123456789abcdef0 in eu-central-1") as missing:
        shop.bake(template=shop.template(source="{ami: ami-0123456789abcdef0}"))
    assert missing.value.code == "source.ami-missing"
