"""The emulator's auto-scaling groups and instance refreshes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.ec2 import Emulator
from tests.support.until import until

SETTLE_SECONDS = 60.0  # a deadline: the emulator's own times are fractions of a second

NUMBERS = {"MinSize": 0, "MaxSize": 4}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("cloud"), delay=0.02) as found:
        yield found


@pytest.fixture
def cloud(emulator: Emulator) -> Emulator:
    emulator.reset()
    return emulator


class Group:
    """web-prod, two instances on version 1 of a launch template; version 2 has another image."""

    def __init__(self, cloud: Emulator, size: int = 2) -> None:
        self.cloud, self.asg = cloud, cloud.as_bake("autoscaling")
        self.old, self.new = cloud.seed_image("old-1"), cloud.seed_image("new-1")
        ec2 = cloud.client("ec2")
        data = {"ImageId": self.old, "InstanceType": "t3.small"}
        self.template = ec2.create_launch_template(LaunchTemplateName="web", LaunchTemplateData=data)["LaunchTemplate"]["LaunchTemplateId"]
        ec2.create_launch_template_version(LaunchTemplateId=self.template, SourceVersion="1", LaunchTemplateData={"ImageId": self.new})
        cloud.client("autoscaling").create_auto_scaling_group(
            AutoScalingGroupName="web-prod", LaunchTemplate=self.version(1), MinSize=0, MaxSize=4, DesiredCapacity=size,
            AvailabilityZones=["eu-central-1a"],
        )  # fmt: skip
        self.settled()

    def version(self, number: int | str) -> dict[str, str]:
        return {"LaunchTemplateId": self.template, "Version": str(number)}

    def members(self) -> list[dict[str, Any]]:
        return list(self.asg.describe_auto_scaling_groups(AutoScalingGroupNames=["web-prod"])["AutoScalingGroups"][0]["Instances"])

    def settled(self) -> None:
        until(
            lambda: not any(member["LifecycleState"] == "Pending" for member in self.members()),
            SETTLE_SECONDS,
            lambda: f"no member of the group is pending any more: {self.members()}",
            pause=0.01,
        )

    def images(self) -> list[str]:
        ids = [member["InstanceId"] for member in self.members() if member["LifecycleState"] == "InService"]
        found = self.cloud.client("ec2").describe_instances(InstanceIds=ids)["Reservations"]
        return sorted(one["Instances"][0]["ImageId"] for one in found)

    def refresh(self, **preferences: Any) -> str:
        said = self.asg.start_instance_refresh(
            AutoScalingGroupName="web-prod", DesiredConfiguration={"LaunchTemplate": self.version(2)}, Preferences=preferences
        )
        return str(said["InstanceRefreshId"])

    def seen(self, refresh: str) -> list[tuple[str, int]]:
        """All (status, percentage) until it ends."""
        found: list[tuple[str, int]] = []

        def ended() -> bool:
            said = self.asg.describe_instance_refreshes(AutoScalingGroupName="web-prod", InstanceRefreshIds=[refresh])["InstanceRefreshes"][
                0
            ]
            if not found or found[-1] != (said["Status"], said["PercentageComplete"]):
                found.append((said["Status"], said["PercentageComplete"]))
            return said["Status"] not in ("Pending", "InProgress", "Cancelling", "RollbackInProgress", "Baking")

        until(ended, SETTLE_SECONDS, lambda: f"the refresh ends: {found}", pause=0.01)
        return found


def test_a_group_needs_a_template_that_launches(cloud: Emulator) -> None:
    asg = cloud.client("autoscaling")
    with pytest.raises(ClientError, match="fully-formed launch template"):
        asg.create_auto_scaling_group(
            AutoScalingGroupName="g", LaunchTemplate={"LaunchTemplateId": "lt-0123456789abcdef0", "Version": "1"},
            AvailabilityZones=["eu-central-1a"],
            **NUMBERS,
        )  # fmt: skip
    group = Group(cloud)
    with pytest.raises(ClientError, match="fully-formed launch template"):
        group.asg.update_auto_scaling_group(AutoScalingGroupName="web-prod", LaunchTemplate=group.version(9))
    with pytest.raises(ClientError, match="name not found"):
        group.asg.update_auto_scaling_group(AutoScalingGroupName="nobody", MinSize=1)


def test_a_refresh_replaces_all_instances(cloud: Emulator) -> None:
    group = Group(cloud)
    assert group.images() == [group.old] * 2
    with cloud.delay(1.0):  # long enough to be seen half-way
        seen = group.seen(group.refresh(MinHealthyPercentage=50, InstanceWarmup=60, CheckpointPercentages=[50, 100], CheckpointDelay=3600))
    assert seen[-1] == ("Successful", 100)
    assert ("InProgress", 50) in seen
    assert group.images() == [group.new] * 2
    found = group.asg.describe_auto_scaling_groups(AutoScalingGroupNames=["web-prod"])["AutoScalingGroups"][0]
    assert found["LaunchTemplate"]["Version"] == "2"
    assert {member["LaunchTemplate"]["Version"] for member in found["Instances"]} == {"2"}
    assert cloud.unread == []


def test_launch_before_terminate(cloud: Emulator) -> None:
    group = Group(cloud)
    assert group.seen(group.refresh(MinHealthyPercentage=100, MaxHealthyPercentage=150))[-1] == ("Successful", 100)
    assert group.images() == [group.new] * 2


def test_what_matches_is_skipped(cloud: Emulator) -> None:
    group = Group(cloud)
    group.seen(group.refresh())
    before = {member["InstanceId"] for member in group.members()}
    assert group.seen(group.refresh(SkipMatching=True))[-1] == ("Successful", 100)
    assert {member["InstanceId"] for member in group.members()} == before


def test_a_failure_rolls_back(cloud: Emulator) -> None:
    group = Group(cloud)
    cloud.faults.add("StartInstanceRefresh", "refresh-failed")
    seen = group.seen(group.refresh(AutoRollback=True, MinHealthyPercentage=50))
    assert [status for status, _ in seen][-2:] == ["RollbackInProgress", "RollbackSuccessful"]
    assert group.images() == [group.old] * 2
    cloud.faults.add("StartInstanceRefresh", "refresh-failed")
    assert group.seen(group.refresh())[-1][0] == "Failed"


def test_an_image_that_is_gone_fails_a_refresh(cloud: Emulator) -> None:
    group = Group(cloud)
    cloud.ask("remove-image", image=group.new, region="eu-central-1")
    assert group.seen(group.refresh())[-1][0] == "Failed"


def test_cancel_and_roll_back_by_hand(cloud: Emulator) -> None:
    group = Group(cloud)
    refresh = group.refresh()
    with pytest.raises(ClientError, match="InstanceRefreshInProgress"):
        group.refresh()
    group.asg.cancel_instance_refresh(AutoScalingGroupName="web-prod")
    assert group.seen(refresh)[-1][0] == "Cancelled"
    with pytest.raises(ClientError, match="ActiveInstanceRefreshNotFound"):
        group.asg.cancel_instance_refresh(AutoScalingGroupName="web-prod")
    refresh = group.refresh()
    group.asg.rollback_instance_refresh(AutoScalingGroupName="web-prod")
    assert group.seen(refresh)[-1][0] == "RollbackSuccessful"
    assert group.images() == [group.old] * 2


def test_auto_rollback_needs_numbers(cloud: Emulator) -> None:
    group = Group(cloud)
    with pytest.raises(ClientError, match=r"\$Latest or \$Default"):
        group.asg.start_instance_refresh(
            AutoScalingGroupName="web-prod",
            Preferences={"AutoRollback": True},
            DesiredConfiguration={"LaunchTemplate": group.version("$Latest")},
        )
    with pytest.raises(ClientError, match="EmulatorDoesNot"):
        group.asg.start_instance_refresh(AutoScalingGroupName="web-prod", Strategy="ReplaceRootVolume")
