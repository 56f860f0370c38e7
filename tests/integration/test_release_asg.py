"""Releases to auto-scaling groups, launch templates and SSM parameters, over HTTP against the emulator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from baker.aws.session import Access
from baker.catalog.catalog import Catalog
from baker.catalog.records import Publication, Release
from baker.core.errors import BakeError, BusyError, Interrupted, NotFoundError, UsageError
from baker.core.events import Event, Memory, Message, Progress, Reporter
from baker.core.leases import FileLeases
from baker.release.channels import assign
from baker.release.releases import Releaser
from baker.release.targets.asg import AutoScalingGroup
from baker.release.targets.base import Delivery, Factory, ReleaseError, ReleaseProgress, ReleaseTarget, Strategy
from baker.release.targets.lt import LaunchTemplate
from baker.release.targets.refresh import Refreshes, preferences
from baker.release.targets.ssm import Parameter
from tests.ec2 import Emulator
from tests.support.fake_app import a_build, an_image
from tests.support.hasty import Hasty
from tests.support.keyed import KeyedAws
from tests.support.until import until

SETTLE_SECONDS = 60.0  # a deadline: the emulator's own times are fractions of a second
REGION, ZONE = "eu-central-1", "eu-central-1a"
OLD, NEW = an_image("web", "1.0.0", 1), an_image("web", "1.1.0", 2)
KINDS: dict[str, Any] = {"asg": AutoScalingGroup, "lt": LaunchTemplate, "ssm": Parameter}


class Stop(Memory):
    """A sink that kills the process at the first message with certain words in it."""

    words = ""

    def emit(self, event: Event) -> None:
        super().emit(event)
        if self.words and isinstance(event, Message) and self.words in event.text:
            self.words = ""
            raise Interrupted(9)


class Shop:
    """A catalog with web 1.0.0 and 1.1.0; a launch template whose version 1 has the AMI of 1.0.0; a group of two on that version."""

    def __init__(self, cloud: Emulator, directory: Path, pinned: str = "1", size: int = 2) -> None:
        self.cloud, self.hasty, self.sink = cloud, Hasty(), Stop()
        self.ec2, self.asg = cloud.client("ec2"), cloud.client("autoscaling")
        self.old, self.new = cloud.seed_image("web-1.0.0"), cloud.seed_image("web-1.1.0")
        self.catalog = Catalog(directory / "catalog.sqlite")
        for image, ami in ((OLD, self.old), (NEW, self.new)):
            self.catalog.register(a_build(image), image)
            self.catalog.publish(Publication(image.id, "ami", ami, REGION, "123456789012"))
        assign(self.catalog, "web", "prod", NEW)
        data = {"ImageId": self.old, "InstanceType": "t3.small", "UserData": "aGVsbG8="}
        made = self.ec2.create_launch_template(LaunchTemplateName="web", LaunchTemplateData=data)
        self.template = made["LaunchTemplate"]["LaunchTemplateId"]
        self.asg.create_auto_scaling_group(
            AutoScalingGroupName="web-prod", LaunchTemplate={"LaunchTemplateId": self.template, "Version": pinned}, MinSize=0, MaxSize=4,
            DesiredCapacity=size, AvailabilityZones=[ZONE],
        )  # fmt: skip
        self.settled()
        self.work = Releaser(self.catalog, FileLeases(directory / "state"), self.sink, self.hasty.clock, targets=self.factory)

    def factory(self, kind: str) -> Factory:
        def make(name: str, access: Access, clock: Any) -> ReleaseTarget:
            found: ReleaseTarget = KINDS[kind](name, access, clock, KeyedAws(self.cloud, access.region))
            return found

        return make

    def release(self, to: str = "asg/web-prod", *, wait: bool = True, **strategy: Any) -> Release:
        return self.work.release("web", "prod", to, Strategy(**strategy), Access(), wait=wait)

    def group(self) -> dict[str, Any]:
        return dict(self.asg.describe_auto_scaling_groups(AutoScalingGroupNames=["web-prod"])["AutoScalingGroups"][0])

    def settled(self) -> None:
        until(
            lambda: not any(member["LifecycleState"] == "Pending" for member in self.group()["Instances"]),
            SETTLE_SECONDS,
            lambda: f"no member of the group is pending any more: {self.group()['Instances']}",
            pause=0.01,
        )

    def images(self) -> list[str]:
        ids = [member["InstanceId"] for member in self.group()["Instances"] if member["LifecycleState"] == "InService"]
        return [one["Instances"][0]["ImageId"] for one in self.ec2.describe_instances(InstanceIds=ids)["Reservations"]]

    def version(self, number: int) -> dict[str, Any]:
        found = self.ec2.describe_launch_template_versions(LaunchTemplateId=self.template, Versions=[str(number)])
        return dict(found["LaunchTemplateVersions"][0])

    @property
    def pinned(self) -> str:
        return str(self.group()["LaunchTemplate"]["Version"])

    @property
    def said(self) -> str:
        return "\n".join(event.text for event in self.sink.events if isinstance(event, Message))

    def calls(self, action: str) -> int:
        return sum(call["action"] == action for call in self.cloud.calls)

    def last(self) -> Release:
        return self.catalog.releases.all("web")[0]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("cloud"), delay=0.02) as found:
        yield found


@pytest.fixture
def cloud(emulator: Emulator) -> Iterator[Emulator]:
    emulator.reset()
    yield emulator
    assert emulator.unread == []


@pytest.fixture
def shop(cloud: Emulator, tmp_path: Path) -> Shop:
    return Shop(cloud, tmp_path)


def test_a_release_ends_with_the_group_on_a_numbered_version_with_the_ami(shop: Shop) -> None:
    done = shop.release(min_healthy=50, max_healthy=100, warm_up=1.0, checkpoints=(50, 100), checkpoint_delay=1.0, bake_time=1.0)
    assert done.status == "succeeded"
    assert shop.images() == [shop.new, shop.new]
    assert shop.pinned == "2"
    assert shop.version(2)["LaunchTemplateData"] == {**shop.version(1)["LaunchTemplateData"], "ImageId": shop.new}, "all else is kept"
    assert shop.version(2)["VersionDescription"].startswith("bake web v1: web@1.1.0 ")
    assert done.details["before"] | {"template": ""} == {
        "template": "", "template_name": "web", "version": 1, "followed": "", "ami": shop.old, "by_parameter": False, "desired": 2,
    }  # fmt: skip
    assert (done.details["version"], done.account, done.region) == (2, "123456789012", REGION)
    asked = next(call for call in shop.cloud.calls if call["action"] == "StartInstanceRefresh")["parameters"]
    assert asked["Preferences"] == {
        "MinHealthyPercentage": 50, "MaxHealthyPercentage": 100, "InstanceWarmup": 1, "CheckpointPercentages": [50, 100],
        "CheckpointDelay": 1, "BakeTime": 1, "SkipMatching": False, "AutoRollback": True,
    }  # fmt: skip
    progress = [event for event in shop.sink.events if isinstance(event, Progress)]
    assert (progress[0].total, progress[-1].done) == (2, 2)
    assert "instance refresh" in shop.said


def test_a_rollback_brings_the_former_ami_back_in_a_new_version(shop: Shop) -> None:
    assign(shop.catalog, "web", "prod", OLD)
    shop.release()
    assign(shop.catalog, "web", "prod", NEW)
    shop.release()
    back = shop.work.rollback("web")
    assert (back.number, back.rollback_of, shop.pinned) == (3, 1, "4")
    assert shop.images() == [shop.old, shop.old]


def test_a_refresh_that_fails_is_rolled_back_by_aws(shop: Shop) -> None:
    shop.cloud.faults.add("StartInstanceRefresh", "refresh-failed")
    with pytest.raises(ReleaseError, match=r"(?s)AWS rolled it back: .*describe-scaling-activities") as failure:
        shop.release()
    assert failure.value.code == "release.rolled-back"
    assert shop.images() == [shop.old, shop.old]
    assert (shop.pinned, shop.last().status, shop.calls("StartInstanceRefresh")) == ("1", "rolled back", 1)


def test_without_auto_rollback_the_group_is_left_as_it_is(shop: Shop) -> None:
    shop.cloud.faults.add("StartInstanceRefresh", "refresh-failed")
    with pytest.raises(ReleaseError, match="not rolled back") as failure:
        shop.release(auto_rollback=False)
    assert failure.value.code == "release.failed"
    assert shop.new in shop.images()
    assert (shop.last().status, shop.calls("StartInstanceRefresh")) == ("failed", 1)


def test_where_aws_cannot_roll_back_bake_does(cloud: Emulator, tmp_path: Path) -> None:
    """The version of before names its AMI by an SSM parameter."""
    shop = Shop(cloud, tmp_path, size=0)
    cloud.client("ssm").put_parameter(Name="/bake/web", Value=shop.old, Type="String", DataType="aws:ec2:image")
    shop.ec2.create_launch_template_version(
        LaunchTemplateId=shop.template, SourceVersion="1", LaunchTemplateData={"ImageId": "resolve:ssm:/bake/web"}
    )
    target, delivery, journal = _target(shop, before_version=2)
    assert delivery.before["by_parameter"]
    assert preferences(delivery.strategy, auto_rollback=False)["AutoRollback"] is False
    target.start(delivery, journal)
    asked = next(call for call in cloud.calls if call["action"] == "StartInstanceRefresh")["parameters"]
    assert asked["Preferences"]["AutoRollback"] is False
    target.wait(delivery, journal)
    assert shop.pinned == "3"
    assert target.restore(delivery, journal)
    assert (shop.pinned, shop.calls("StartInstanceRefresh")) == ("2", 2)
    asked = [call for call in cloud.calls if call["action"] == "StartInstanceRefresh"][-1]["parameters"]
    assert asked["Preferences"]["SkipMatching"] is True


def _target(shop: Shop, before_version: int) -> tuple[AutoScalingGroup, Delivery, ReleaseProgress]:
    """The group pinned to that version, a delivery of the new AMI, and a journal of nobody's."""
    shop.asg.update_auto_scaling_group(
        AutoScalingGroupName="web-prod", LaunchTemplate={"LaunchTemplateId": shop.template, "Version": str(before_version)}
    )
    target = AutoScalingGroup("web-prod", Access(), shop.hasty.clock, KeyedAws(shop.cloud))
    delivery = Delivery("web v1", "web@1.1.0", shop.new, "0" * 32, Strategy(), target.look())
    return target, delivery, ReleaseProgress(Reporter(shop.sink, "web v1"), {}, lambda details: None)


def test_a_group_that_follows_latest_is_pinned_before_the_version_is_made(cloud: Emulator, tmp_path: Path) -> None:
    shop = Shop(cloud, tmp_path, pinned="$Latest")
    done = shop.release()
    actions = [call["action"] for call in cloud.calls]
    assert actions.index("UpdateAutoScalingGroup") < actions.index("CreateLaunchTemplateVersion")
    assert (shop.pinned, done.details["before"]["followed"]) == ("2", "$Latest")
    assert "web-prod used $Latest: pinning it to version 1" in shop.said


def test_a_group_in_the_middle_of_a_refresh_is_busy(shop: Shop) -> None:
    with shop.cloud.delay(5.0):  # longer than the release takes to look, on a busy machine too
        shop.asg.start_instance_refresh(AutoScalingGroupName="web-prod")
        with pytest.raises(
            BusyError, match=r"instance refresh \S+ of auto-scaling group web-prod is (Pending|InProgress)\n.*cancel-instance"
        ) as busy:
            shop.release()
        assert busy.value.code == "release.refresh-running"
    assert shop.catalog.releases.all() == []


def test_a_refresh_that_somebody_else_begins_meanwhile(shop: Shop) -> None:
    refreshes = Refreshes("web-prod", KeyedAws(shop.cloud), REGION, shop.hasty.clock)
    shop.asg.start_instance_refresh(AutoScalingGroupName="web-prod")
    with pytest.raises(BusyError, match="another instance refresh of auto-scaling group web-prod") as busy:
        refreshes.start({"LaunchTemplate": {"LaunchTemplateId": shop.template, "Version": "1"}}, {})
    assert busy.value.code == "release.refresh-running"


def test_a_restore_does_not_take_an_older_refresh_for_its_own(shop: Shop) -> None:
    shop.ec2.create_launch_template_version(LaunchTemplateId=shop.template, SourceVersion="1", LaunchTemplateData={"ImageId": shop.new})
    refreshes = Refreshes("web-prod", KeyedAws(shop.cloud), REGION, shop.hasty.clock)
    ids = []
    for version in ("1", "2"):
        ids.append(refreshes.start({"LaunchTemplate": {"LaunchTemplateId": shop.template, "Version": version}}, {}))
        refreshes.follow(ids[-1], Reporter(shop.sink, "web"), total=2, timeout=60)
    former = {"LaunchTemplate": {"LaunchTemplateId": shop.template, "Version": "1"}}
    assert refreshes.to(former) == ids[0]
    assert refreshes.to(former, after=ids[1]) is None


def test_a_refresh_whose_answer_was_lost_is_our_own(shop: Shop) -> None:
    """It is asked for again, and AWS says that one is in progress."""
    shop.cloud.faults.add("StartInstanceRefresh", "reset")
    assert shop.release().status == "succeeded"
    assert (shop.calls("StartInstanceRefresh"), shop.pinned) == (2, "2")


def test_ending_a_refresh_that_has_just_ended_is_no_error(shop: Shop) -> None:
    refreshes = Refreshes("web-prod", KeyedAws(shop.cloud), REGION, shop.hasty.clock)
    for roll_back in (True, False):
        refreshes.stop("08b9", roll_back=roll_back)


def test_what_somebody_else_gave_the_group_meanwhile_is_left(shop: Shop) -> None:
    target, delivery, journal = _target(shop, before_version=1)
    target.start(delivery, journal)
    target.wait(delivery, journal)
    assert shop.pinned == "2"
    shop.ec2.create_launch_template_version(LaunchTemplateId=shop.template, SourceVersion="2", LaunchTemplateData={"ImageId": shop.old})
    for version, then in (("3", "3"), ("1", "2")):
        named = {"LaunchTemplateId": shop.template, "Version": version}
        shop.asg.update_auto_scaling_group(AutoScalingGroupName="web-prod", LaunchTemplate=named)
        target.wait(delivery, journal)
        assert shop.pinned == then


def test_a_refresh_that_takes_too_long_is_ended_and_rolled_back(shop: Shop) -> None:
    with shop.cloud.delay(2.0):
        shop.cloud.ask("settings", delay=5.0)
        with pytest.raises(ReleaseError) as failure:
            shop.cloud.ask("settings", delay=0.2)
            shop.hasty.pause = 0.001
            shop.release(timeout=3.0)
    assert "timed out after 3 s: instance refresh " in str(failure.value)
    assert (shop.last().status, shop.pinned) == ("rolled back", "1")
    shop.settled()
    assert set(shop.images()) == {shop.old}


def test_a_refresh_that_takes_too_long_is_ended_without_roll_back_too(shop: Shop) -> None:
    with shop.cloud.delay(2.0):
        shop.hasty.pause = 0.001
        with pytest.raises(ReleaseError, match="not rolled back") as failure:
            shop.release(timeout=3.0, auto_rollback=False)
    assert failure.value.code == "release.failed"
    assert shop.calls("CancelInstanceRefresh") == 1


@pytest.mark.parametrize(
    "words",
    ["launch template web: version 2", "instance refresh"],  # killed after the version was made; while the refresh runs
)
def test_a_killed_release_is_gone_on_with_and_makes_nothing_twice(shop: Shop, words: str) -> None:
    shop.sink.words = words
    with pytest.raises(Interrupted):
        shop.release()
    assert shop.last().status == "running"
    with pytest.raises(BusyError, match=r": (version 2 of launch template web was made|instance refresh)") as busy:
        shop.release()
    assert busy.value.code == "release.abandoned"
    [done] = shop.work.resume("web")
    assert (done.number, done.status, shop.pinned) == (1, "succeeded", "2")
    assert (shop.calls("CreateLaunchTemplateVersion"), shop.calls("StartInstanceRefresh")) == (1, 1)
    assert shop.images() == [shop.new, shop.new]


def test_what_was_made_but_not_noted_is_found_again(shop: Shop) -> None:
    """Killed between AWS's answer and the note of it."""
    target, delivery, journal = _target(shop, before_version=1)
    target.start(delivery, journal)
    fresh = ReleaseProgress(Reporter(shop.sink, "web v1"), {"making_version": True, "starting_refresh": True}, lambda details: None)
    target.start(delivery, fresh)
    assert {**fresh.details} == {**journal.details}
    assert (shop.calls("CreateLaunchTemplateVersion"), shop.calls("StartInstanceRefresh")) == (1, 1)
    assert target.found(delivery, fresh).startswith("instance refresh ")


def test_not_waiting_leaves_it_to_aws(shop: Shop) -> None:
    assert shop.release(wait=False).status == "running"
    assert shop.work.resume("web")[0].status == "succeeded"
    assert shop.images() == [shop.new, shop.new]


@pytest.mark.parametrize("action", ["CreateLaunchTemplateVersion", "StartInstanceRefresh", "DescribeInstanceRefreshes"])
def test_throttling_is_survived(shop: Shop, action: str) -> None:
    shop.cloud.faults.add(action, "RequestLimitExceeded", times=2)
    assert shop.release().status == "succeeded"


# -- what is refused ------------------------------------------------------------------------------------------------------------


def test_a_group_that_is_not_there(shop: Shop) -> None:
    with pytest.raises(NotFoundError, match=r"'web-stage' in eu-central-1 \(account 123456789012\)\n.*web-prod") as missing:
        shop.release("asg/web-stage")
    assert missing.value.code == "release.group-missing"


def test_an_ami_that_cannot_take_the_place(shop: Shop) -> None:
    arm = shop.cloud.seed_image("web-arm", architecture="arm64")
    for ami, code, facts in (
        (arm, "release.architecture", "arm64.* web .*x86_64"),
        ("ami-00000000000000000", "release.ami-not-visible", "ami-00000000000000000"),
    ):
        target, delivery, _ = _target(shop, before_version=1)
        with pytest.raises(BakeError, match=facts) as failure:
            target.check(Delivery("web v1", "web@2", ami, "0" * 32, Strategy(), delivery.before))
        assert failure.value.code == code


def test_a_template_with_its_own_snapshot_would_not_run_the_ami(shop: Shop) -> None:
    snapshot = shop.ec2.describe_images(ImageIds=[shop.old])["Images"][0]["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    shop.ec2.create_launch_template_version(
        LaunchTemplateId=shop.template,
        SourceVersion="1",
        LaunchTemplateData={"BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}}]},
    )
    target, delivery, _ = _target(shop, before_version=2)
    with pytest.raises(UsageError, match=f"version 2 of launch template web .* {snapshot} on /dev/xvda") as failure:
        target.check(delivery)
    assert failure.value.code == "release.template-snapshot"


@pytest.mark.parametrize(
    ("group", "code", "fact"),
    [
        ({"LaunchConfigurationName": "old"}, "release.launch-configuration", "old"),
        ({}, "release.no-template", "web-prod"),
        (
            {
                "MixedInstancesPolicy": {
                    "LaunchTemplate": {
                        "Overrides": [{"InstanceType": "m7g.large", "LaunchTemplateSpecification": {"LaunchTemplateId": "lt-1"}}]
                    }
                }
            },
            "release.several-templates",
            "m7g.large",
        ),
    ],
)
def test_groups_that_cannot_be_given_one_ami(group: dict[str, Any], code: str, fact: str) -> None:
    from baker.release.targets.asg import _specification_of

    with pytest.raises(UsageError, match=fact) as failure:
        _specification_of({"AutoScalingGroupName": "web-prod", **group})
    assert failure.value.code == code


# -- launch templates, parameters -----------------------------------------------------------------------------------------------


def test_a_launch_template_alone(shop: Shop) -> None:
    done = shop.release("lt/web")
    assert (done.status, done.details["version"], shop.version(2)["LaunchTemplateData"]["ImageId"]) == ("succeeded", 2, shop.new)
    assert not shop.version(2)["DefaultVersion"]
    shop.release("lt/web", set_default=True)
    assert shop.version(3)["DefaultVersion"]
    assert shop.pinned == "1", "no group is touched"
    with pytest.raises(NotFoundError, match="nowhere") as missing:
        shop.release("lt/nowhere")
    assert missing.value.code == "release.template-missing"
    with pytest.raises(UsageError, match=r"lt/web .*--min-healthy") as unsupported:
        shop.release("lt/web", min_healthy=50)
    assert unsupported.value.code == "release.option-unsupported"


def test_a_parameter(shop: Shop) -> None:
    done = shop.release("ssm//bake/web/prod")
    assert (done.status, done.details["before"]) == ("succeeded", {"value": None, "ami": ""})
    found = shop.cloud.client("ssm").get_parameter(Name="/bake/web/prod")["Parameter"]
    assert (found["Value"], found["Type"], found["DataType"]) == (shop.new, "String", "aws:ec2:image")
    assign(shop.catalog, "web", "prod", OLD)
    assert shop.release("ssm//bake/web/prod").details["before"]["value"] == shop.new
    shop.work.rollback("web")
    assert shop.cloud.client("ssm").get_parameter(Name="/bake/web/prod")["Parameter"]["Value"] == shop.new


def test_a_parameter_that_is_not_taken_is_put_back(shop: Shop) -> None:
    ssm = shop.cloud.client("ssm")
    target = Parameter("/bake/web/prod", Access(), shop.hasty.clock, KeyedAws(shop.cloud))
    journal = ReleaseProgress(Reporter(shop.sink, "web v1"), {}, lambda details: None)
    delivery = Delivery("web v1", "web@1.1.0", shop.new, "0" * 32, Strategy(timeout=5.0), target.look())
    assert not target.restore(delivery, journal)
    with pytest.raises(ReleaseError, match=f"{shop.new} for /bake/web/prod within 5 s") as failure:
        target.wait(delivery, journal)
    assert failure.value.code == "release.parameter-refused"
    target.start(delivery, journal)
    assert target.found(delivery, journal) == f"the parameter is {shop.new}"
    assert target.restore(delivery, journal)
    assert target.found(delivery, journal) == "the parameter does not exist"
    ssm.put_parameter(Name="/bake/web/prod", Value="a,b", Type="StringList")
    with pytest.raises(UsageError, match="StringList") as refused:
        target.look()
    assert refused.value.code == "release.parameter-type"
