"""The emulator refuses what AWS refuses, takes its time, and tells what it does not read."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from tests.ec2 import Emulator
from tests.support.until import until

PROJECT = Path(__file__).parents[2]
REGION, OTHER = "eu-central-1", "eu-west-1"


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("cloud"), delay=0.03) as found:
        yield found


@pytest.fixture
def cloud(emulator: Emulator) -> Emulator:
    emulator.reset()
    return emulator


@pytest.fixture
def ec2(cloud: Emulator) -> Any:
    return cloud.as_bake("ec2")


def refused(code: str) -> Any:
    return pytest.raises(ClientError, match=code.replace(".", r"\."))


def ends_in(look: Callable[[], str], *wanted: str) -> str:
    """The state that `look` ends in."""
    return until(lambda: found if (found := look()) in wanted else "", 30, lambda: f"{look()} becomes {' or '.join(wanted)}")


def run(ec2: Any, image: str, **more: Any) -> str:
    return str(ec2.run_instances(ImageId=image, InstanceType="t3.small", MinCount=1, MaxCount=1, **more)["Instances"][0]["InstanceId"])


def state(ec2: Any, instance: str) -> str:
    return str(ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]["State"]["Name"])


def image_state(ec2: Any, image: str) -> str:
    return str(ec2.describe_images(ImageIds=[image])["Images"][0]["State"])


def stopped(ec2: Any, image: str, **more: Any) -> str:
    instance = run(ec2, image, **more)
    ends_in(lambda: state(ec2, instance), "running")
    ec2.stop_instances(InstanceIds=[instance])
    ends_in(lambda: state(ec2, instance), "stopped")
    return instance


def baked(ec2: Any, source: str, name: str = "web-1") -> str:
    made = ec2.create_image(InstanceId=stopped(ec2, source), Name=name)["ImageId"]
    ends_in(lambda: image_state(ec2, made), "available")
    return str(made)


def test_an_instance_comes_stops_starts_and_goes(cloud: Emulator, ec2: Any) -> None:
    before = cloud.inventory()
    image = cloud.seed_image(size=4)
    made = ec2.run_instances(ImageId=image, InstanceType="t3.small", MinCount=1, MaxCount=1)["Instances"][0]
    assert made["State"]["Name"] == "pending"
    instance = made["InstanceId"]
    ends_in(lambda: state(ec2, instance), "running")
    status = ec2.describe_instance_status(InstanceIds=[instance])["InstanceStatuses"]
    assert status[0]["InstanceStatus"]["Status"] in ("initializing", "ok")
    with cloud.delay(2.0):
        ec2.stop_instances(InstanceIds=[instance])
        with refused("IncorrectInstanceState"):
            ec2.start_instances(InstanceIds=[instance])
    ends_in(lambda: state(ec2, instance), "stopped")
    ec2.start_instances(InstanceIds=[instance])
    ends_in(lambda: state(ec2, instance), "running")
    assert list(cloud.inventory()[REGION]["instances"]) == [instance]
    with cloud.delay(2.0):
        ec2.terminate_instances(InstanceIds=[instance])
        assert state(ec2, instance) == "shutting-down"
    ends_in(lambda: state(ec2, instance), "terminated")
    assert cloud.inventory() == before
    assert cloud.unread == []


def test_what_run_instances_refuses(cloud: Emulator, ec2: Any) -> None:
    image = cloud.seed_image(size=8)
    with refused("InvalidAMIID.NotFound"):
        run(ec2, "ami-0123456789abcdef0")
    with refused("InvalidKeyPair.NotFound"):
        run(ec2, image, KeyName="nobody")
    with refused("InvalidGroup.NotFound"):
        run(ec2, image, SecurityGroupIds=["sg-0123456789abcdef0"])
    with refused("InvalidSubnetID.NotFound"):
        run(ec2, image, SubnetId="subnet-0123456789abcdef0")
    with refused("InvalidBlockDeviceMapping"):
        run(ec2, image, BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 4}}])
    with refused("InvalidParameterDependency"):
        run(ec2, image, BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"KmsKeyId": "alias/none"}}])
    with refused("does not match the architecture"):
        ec2.run_instances(ImageId=image, InstanceType="t4g.small", MinCount=1, MaxCount=1)
    with refused("User data is limited"):
        run(ec2, image, UserData="x" * 16385)
    with refused("DryRunOperation"):
        run(ec2, image, DryRun=True)
    with refused("EmulatorDoesNotRead"):
        run(ec2, image, CreditSpecification={"CpuCredits": "unlimited"})
    assert cloud.unread == ["ec2:RunInstances.CreditSpecification.CpuCredits"]
    assert "instances" not in cloud.inventory().get(REGION, {})


def test_tags_devices_and_metadata_options_are_kept(cloud: Emulator, ec2: Any) -> None:
    image = cloud.seed_image(size=4)
    device = {
        "DeviceName": "/dev/xvda",
        "Ebs": {"VolumeSize": 10, "VolumeType": "gp3", "Encrypted": True, "Throughput": 250, "DeleteOnTermination": True},
    }
    tags = [{"ResourceType": kind, "Tags": [{"Key": "bake:build", "Value": "b"}]} for kind in ("instance", "volume", "network-interface")]
    instance = run(
        ec2, image, BlockDeviceMappings=[device], TagSpecifications=tags, MetadataOptions={"HttpTokens": "required"},
        InstanceMarketOptions={"MarketType": "spot"},
    )  # fmt: skip
    found = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    assert (found["MetadataOptions"]["HttpTokens"], found["InstanceLifecycle"]) == ("required", "spot")
    volumes = ec2.describe_volumes(Filters=[{"Name": "tag:bake:build", "Values": ["b"]}])["Volumes"]
    assert [(one["Size"], one["VolumeType"], one["Encrypted"], one["Throughput"]) for one in volumes] == [(10, "gp3", True, 250)]
    assert len(ec2.describe_network_interfaces(Filters=[{"Name": "tag:bake:build", "Values": ["b"]}])["NetworkInterfaces"]) == 1


def test_a_client_token_runs_one_instance(cloud: Emulator, ec2: Any) -> None:
    image = cloud.seed_image()
    cloud.faults.add("RunInstances", "reset")
    one = run(ec2, image, ClientToken="t")
    assert run(ec2, image, ClientToken="t") == one
    with refused("IdempotentParameterMismatch"):
        run(ec2, image, ClientToken="t", EbsOptimized=True)
    assert len(cloud.inventory()[REGION]["instances"]) == 1
    assert [call["action"] for call in cloud.calls] == ["RunInstances"] * 4


def test_a_security_group_in_use_stays(cloud: Emulator, ec2: Any) -> None:
    group = ec2.create_security_group(GroupName="g", Description="d")["GroupId"]
    instance = run(ec2, cloud.seed_image(), SecurityGroupIds=[group])
    with refused("DependencyViolation"):
        ec2.delete_security_group(GroupId=group)
    ec2.terminate_instances(InstanceIds=[instance])
    ends_in(lambda: state(ec2, instance), "terminated")
    ec2.delete_security_group(GroupId=group)
    with refused("InvalidGroup.NotFound"):
        ec2.delete_security_group(GroupId=group)


def test_an_image_is_made_copied_and_removed(cloud: Emulator, ec2: Any) -> None:
    source, tags = cloud.seed_image(size=4), [{"Key": "bake:build", "Value": "b"}]
    instance = stopped(ec2, source)
    both = [{"ResourceType": kind, "Tags": tags} for kind in ("image", "snapshot")]
    cloud.faults.add("CreateImage", "slow", seconds=3.0)
    image = ec2.create_image(InstanceId=instance, Name="web-1", TagSpecifications=both)["ImageId"]
    with refused("InvalidAMIName.Duplicate"):
        ec2.create_image(InstanceId=instance, Name="web-1")
    with refused("InvalidAMIName.Malformed"):
        ec2.create_image(InstanceId=instance, Name="a#b")
    assert ends_in(lambda: image_state(ec2, image), "pending", "available") == "pending"
    ends_in(lambda: image_state(ec2, image), "available")
    key = cloud.client("kms", OTHER).create_key()["KeyMetadata"]["Arn"]
    there = cloud.as_bake("ec2", OTHER)
    copied = there.copy_image(
        Name="web-1", SourceImageId=image, SourceRegion=REGION, Encrypted=True, KmsKeyId=key, TagSpecifications=both, ClientToken="c"
    )["ImageId"]
    ends_in(lambda: image_state(there, copied), "available")
    snapshot = there.describe_snapshots(Filters=[{"Name": "tag:bake:build", "Values": ["b"]}])["Snapshots"][0]
    assert (snapshot["Encrypted"], snapshot["KmsKeyId"], snapshot["State"]) == (True, key, "completed")
    described = there.describe_images(Owners=["self"])["Images"][0]
    assert (described["SourceImageId"], described["SourceImageRegion"]) == (image, REGION)
    with refused("InvalidSnapshot.InUse"):
        there.delete_snapshot(SnapshotId=snapshot["SnapshotId"])
    there.enable_image_deregistration_protection(ImageId=copied)
    with refused("OperationNotPermitted"):
        there.deregister_image(ImageId=copied)
    there.disable_image_deregistration_protection(ImageId=copied)
    gone = there.deregister_image(ImageId=copied, DeleteAssociatedSnapshots=True)
    assert gone["DeleteSnapshotResults"] == [{"SnapshotId": snapshot["SnapshotId"], "ReturnCode": "success"}]
    with refused("InvalidAMIID.NotFound"):
        image_state(there, copied)
    assert cloud.inventory().get(OTHER) is None
    assert cloud.unread == []


def test_a_key_of_another_region_fails_a_copy(cloud: Emulator, ec2: Any) -> None:
    image, key = baked(ec2, cloud.seed_image()), cloud.client("kms", REGION).create_key()["KeyMetadata"]["Arn"]
    there = cloud.as_bake("ec2", OTHER)
    copied = there.copy_image(Name="x-1", SourceImageId=image, SourceRegion=REGION, Encrypted=True, KmsKeyId=key)["ImageId"]
    ends_in(lambda: image_state(there, copied), "failed")
    assert "KMS" in there.describe_images(ImageIds=[copied])["Images"][0]["StateReason"]["Message"]


def test_what_is_said_of_an_image(cloud: Emulator, ec2: Any) -> None:
    image = baked(ec2, cloud.seed_image())
    when = datetime.now(UTC) + timedelta(days=90)
    ec2.enable_image_deprecation(ImageId=image, DeprecateAt=when)
    organisation = "arn:aws:organizations::123456789012:organization/o-abcdefghij"
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"UserId": "111122223333"}, {"OrganizationArn": organisation}]})
    ec2.modify_image_attribute(ImageId=image, ImdsSupport={"Value": "v2.0"})
    with refused("InvalidAMIAttributeItemValue"):
        ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"UserId": "12"}]})
    found = ec2.describe_images(ImageIds=[image])["Images"][0]
    assert found["ImdsSupport"] == "v2.0"
    assert found["DeprecationTime"].startswith(when.strftime("%Y-%m-%dT%H:%M"))
    shared = ec2.describe_image_attribute(ImageId=image, Attribute="launchPermission")["LaunchPermissions"]
    assert shared == [{"UserId": "111122223333"}, {"OrganizationArn": organisation}]
    snapshot = found["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    ec2.modify_snapshot_attribute(SnapshotId=snapshot, Attribute="createVolumePermission", OperationType="add", UserIds=["111122223333"])
    ec2.disable_image(ImageId=image)
    assert ec2.describe_images(Owners=["self"])["Images"] == []
    assert ec2.describe_images(Owners=["self"], IncludeDisabled=True)["Images"][0]["State"] == "disabled"
    with refused("InvalidAMIID.Unavailable"):
        run(ec2, image)
    ec2.enable_image(ImageId=image)
    assert image_state(ec2, image) == "available"
    other = cloud.seed_image("other")
    with refused("AuthFailure"):
        ec2.deregister_image(ImageId=other)


def test_an_image_with_the_default_key_is_not_shared(cloud: Emulator, ec2: Any) -> None:
    image = cloud.seed_image(size=4)
    instance = stopped(ec2, image, BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"Encrypted": True, "VolumeSize": 4}}])
    made = ec2.create_image(InstanceId=instance, Name="web-1")["ImageId"]
    ends_in(lambda: image_state(ec2, made), "available")
    with refused("can't be shared"):
        ec2.modify_image_attribute(ImageId=made, LaunchPermission={"Add": [{"UserId": "111122223333"}]})


def test_faults_come_as_wished(cloud: Emulator, ec2: Any) -> None:
    image = cloud.seed_image()
    cloud.faults.add("RunInstances", "InsufficientInstanceCapacity", times=3)
    with refused("InsufficientInstanceCapacity"):
        run(ec2, image)
    cloud.faults.clear()
    instance = run(ec2, image)
    cloud.faults.add("DescribeInstances", "NotFound", times=2)
    for _ in range(2):
        with refused("InvalidInstanceID.NotFound"):
            state(ec2, instance)
    ends_in(lambda: state(ec2, instance), "running")
    for kind, code in (("ExpiredToken", "RequestExpired"), ("AccessDenied", "UnauthorizedOperation")):
        cloud.faults.add("DescribeInstances", kind)
        with refused(code):
            state(ec2, instance)
    cloud.faults.add("*", "ServiceUnavailable", times=1)
    assert state(ec2, instance) == "running"  # asked again
    ec2.stop_instances(InstanceIds=[instance])
    ends_in(lambda: state(ec2, instance), "stopped")
    cloud.faults.add("CreateImage", "snapshot-error")
    cloud.faults.add("CreateImage", "image-failed", skip=1)
    for name in ("one", "two"):
        made = ec2.create_image(InstanceId=instance, Name=name)["ImageId"]
        ends_in(lambda made=made: image_state(ec2, made), "failed")
    cloud.faults.add("RunInstances", "spot-reclaim", seconds=0.05)
    lost = run(ec2, image, InstanceMarketOptions={"MarketType": "spot"})
    ends_in(lambda: state(ec2, lost), "terminated")
    found = ec2.describe_instances(InstanceIds=[lost])["Reservations"][0]["Instances"][0]
    assert found["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    cloud.faults.add("DescribeRegions", "reset", times=3)
    with pytest.raises(ConnectionClosedError):
        ec2.describe_regions()


def test_slow_states(cloud: Emulator, ec2: Any) -> None:
    cloud.faults.add("RunInstances", "slow", seconds=0.4)
    began, instance = time.monotonic(), run(ec2, cloud.seed_image())
    ends_in(lambda: state(ec2, instance), "running")
    assert time.monotonic() - began > 0.4


def test_launch_templates_have_numbered_versions(cloud: Emulator, ec2: Any) -> None:
    image = cloud.seed_image()
    template = ec2.create_launch_template(LaunchTemplateName="web", LaunchTemplateData={"ImageId": image, "InstanceType": "t3.small"})[
        "LaunchTemplate"
    ]
    named = {"LaunchTemplateId": template["LaunchTemplateId"]}
    second = cloud.seed_image("second")
    made = ec2.create_launch_template_version(**named, SourceVersion="1", LaunchTemplateData={"ImageId": second})["LaunchTemplateVersion"]
    assert (made["VersionNumber"], made["LaunchTemplateData"]["InstanceType"], made["LaunchTemplateData"]["ImageId"]) == (
        2,
        "t3.small",
        second,
    )
    with refused("VersionNotFound"):
        ec2.create_launch_template_version(**named, SourceVersion="7", LaunchTemplateData={"ImageId": second})
    with refused("VersionNotFound"):
        ec2.run_instances(LaunchTemplate={**named, "Version": "9"}, MinCount=1, MaxCount=1)
    started = ec2.run_instances(LaunchTemplate={**named, "Version": "2"}, MinCount=1, MaxCount=1)["Instances"][0]
    assert started["ImageId"] == second
    gone = ec2.delete_launch_template_versions(**named, Versions=["2", "1"])
    assert [one["VersionNumber"] for one in gone["SuccessfullyDeletedLaunchTemplateVersions"]] == [2]
    versions = ec2.describe_launch_template_versions(**named)["LaunchTemplateVersions"]
    assert [one["VersionNumber"] for one in versions] == [1]
    assert ec2.create_launch_template_version(**named, LaunchTemplateData={"ImageId": image})["LaunchTemplateVersion"]["VersionNumber"] == 3


def test_parameters_and_quotas(cloud: Emulator) -> None:
    image, ssm = cloud.seed_image(), cloud.as_bake("ssm")
    cloud.seed_parameter("/aws/service/debian/release/13/latest/amd64", image)
    assert ssm.get_parameter(Name="/aws/service/debian/release/13/latest/amd64")["Parameter"]["Value"] == image
    ssm.put_parameter(Name="/bake/web/prod", Value=image, Type="String", DataType="aws:ec2:image")
    with refused("no available image"):
        ssm.put_parameter(Name="/bake/web/prod", Value="ami-0123456789abcdef0", Type="String", DataType="aws:ec2:image", Overwrite=True)
    assert cloud.inventory()[REGION]["parameters"]["/bake/web/prod"]["value"] == image
    quota = cloud.as_bake("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode="L-1216C47A")["Quota"]
    assert quota["Value"] == 5.0
    assert cloud.unread == []


def test_a_role_is_assumed_with_its_external_id(cloud: Emulator) -> None:
    trust = '{"Statement": [{"Effect": "Allow", "Condition": {"StringEquals": {"sts:ExternalId": "x1"}}}]}'
    arn = cloud.client("iam").create_role(RoleName="baker", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    sts = cloud.as_bake("sts")
    with refused("AccessDenied"):
        sts.assume_role(RoleArn=arn, RoleSessionName="bake")
    with refused("AccessDenied"):
        sts.assume_role(RoleArn=arn + "s", RoleSessionName="bake", ExternalId="x1")
    assert sts.assume_role(RoleArn=arn, RoleSessionName="bake", ExternalId="x1")["Credentials"]["AccessKeyId"].startswith("ASIA")
    assert sts.get_caller_identity()["Account"] == "123456789012"


def test_the_inventory_tells_what_is_left(cloud: Emulator, ec2: Any) -> None:
    before = cloud.inventory()
    cloud.seed_image("not ours")
    tags = [{"ResourceType": "key-pair", "Tags": [{"Key": "bake:build", "Value": "b"}]}]
    ec2.create_key_pair(KeyName="k", KeyType="ed25519", TagSpecifications=tags)
    ec2.create_security_group(GroupName="g", Description="d")
    cloud.as_bake("ebs", OTHER).start_snapshot(VolumeSize=1)
    found = cloud.inventory()
    assert {region: sorted(kinds) for region, kinds in found.items()} == {REGION: ["key-pairs", "security-groups"], OTHER: ["snapshots"]}
    assert found[REGION]["key-pairs"]["k"]["tags"] == {"bake:build": "b"}
    assert before == {}


def test_only_what_is_there_is_tagged(cloud: Emulator, ec2: Any) -> None:
    group = ec2.create_security_group(GroupName="g", Description="d")["GroupId"]
    ec2.create_tags(Resources=[group], Tags=[{"Key": "a", "Value": "b"}])
    assert ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["Tags"] == [{"Key": "a", "Value": "b"}]
    for name, code in (("i-0123456789abcdef0", "InvalidInstanceID.NotFound"), ("ami-0123456789abcdef0", "InvalidAMIID.NotFound")):
        with refused(code):
            ec2.create_tags(Resources=[name], Tags=[{"Key": "a", "Value": "b"}])


def test_a_spot_instance_has_a_request(cloud: Emulator, ec2: Any) -> None:
    tags = [{"ResourceType": "spot-instances-request", "Tags": [{"Key": "bake:build", "Value": "b"}]}]
    instance = run(ec2, cloud.seed_image(), InstanceMarketOptions={"MarketType": "spot"}, TagSpecifications=tags)
    wanted = [{"Name": "tag:bake:build", "Values": ["b"]}]
    found = ec2.describe_spot_instance_requests(Filters=wanted)["SpotInstanceRequests"]
    assert [(one["InstanceId"], one["State"]) for one in found] == [(instance, "active")]
    assert list(cloud.inventory()[REGION]["spot-requests"]) == [found[0]["SpotInstanceRequestId"]]
    ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[found[0]["SpotInstanceRequestId"]])
    assert ec2.describe_spot_instance_requests(Filters=wanted)["SpotInstanceRequests"][0]["State"] == "cancelled"
    with refused("InvalidParameterCombination"):
        run(ec2, cloud.seed_image("b-1"), TagSpecifications=tags)


def test_what_is_not_visible_yet_is_not_listed(cloud: Emulator, ec2: Any) -> None:
    instance = run(ec2, cloud.seed_image())
    wanted = [{"Name": "instance-id", "Values": [instance]}]
    cloud.faults.add("DescribeInstances", "NotFound")
    assert ec2.describe_instances(Filters=wanted)["Reservations"] == []
    assert len(ec2.describe_instances(Filters=wanted)["Reservations"]) == 1


def test_instances_that_fail(cloud: Emulator, ec2: Any) -> None:
    image = cloud.seed_image()
    cloud.faults.add("RunInstances", "instance-fails")
    lost = run(ec2, image)
    ends_in(lambda: state(ec2, lost), "terminated")
    assert ec2.describe_instances(InstanceIds=[lost])["Reservations"][0]["Instances"][0]["StateReason"]["Code"] == "Server.InternalError"
    cloud.faults.add("RunInstances", "impaired")
    ill = run(ec2, image)
    ends_in(lambda: state(ec2, ill), "running")
    status = ec2.describe_instance_status(InstanceIds=[ill])["InstanceStatuses"][0]
    assert status["InstanceStatus"]["Status"] == "impaired"
    wrong = {"DeviceName": "/dev/xvda", "Ebs": {"Encrypted": True, "KmsKeyId": f"arn:aws:kms:{REGION}:123456789012:key/none"}}
    keyless = run(ec2, image, BlockDeviceMappings=[wrong])
    ends_in(lambda: state(ec2, keyless), "terminated")
    with pytest.raises(RuntimeError, match="no fault is called typo"):
        cloud.faults.add("RunInstances", "typo")


OWNER = """
import sys
from pathlib import Path
from tests.ec2 import Emulator
with Emulator(Path(sys.argv[1])) as cloud:
    print(cloud._process.pid, flush=True)
    sys.stdin.read()
"""


def test_the_emulator_ends_with_whoever_started_it(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROJECT) as owner:
        assert owner.stdout is not None
        process = Path("/proc") / owner.stdout.readline().decode().strip()
        assert (process / "cmdline").exists()
        owner.kill()
        owner.wait()
        ends_in(lambda: "alive" if (process / "cmdline").exists() and (process / "cmdline").read_bytes() else "gone", "gone")
