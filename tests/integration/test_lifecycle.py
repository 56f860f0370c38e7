"""The end of AMIs: which may go, which never, over HTTP against the emulator; the rules as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from baker.catalog.catalog import Catalog
from baker.catalog.records import Publication, Release
from baker.core.clock import Clock
from baker.release.channels import assign
from baker.release.lifecycle import DAY, Facts, Lifecycle, RetentionDecision, Rules, judge
from tests.ec2 import Emulator
from tests.support.fake_app import a_build, an_image
from tests.support.keyed import KeyedAws

REGION, ZONE, ACCOUNT = "eu-central-1", "eu-central-1a", "123456789012"
NOW = datetime.now(UTC).replace(microsecond=0)
ALL = Rules(keep=1, older_than=90 * DAY, unlaunched=30 * DAY, deregister=True, delete_snapshots=True)


def days_ago(days: float) -> str:
    return (NOW - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


def facts(days: float = 100, number: int = 1, *, removed: bool = False, **changes: Any) -> Facts:
    image = an_image("web", f"1.{number}.0", number, removed=days_ago(1) if removed else None)
    publication = Publication(image.id, "ami", f"ami-{number}", REGION, ACCOUNT, created=days_ago(days))
    values: dict[str, Any] = {"seen": {"State": "available"}} | changes
    return Facts(publication, image, **values)


@pytest.mark.parametrize(
    ("one", "rules", "action", "why"),
    [
        (facts(), ALL, "deregister", "unused, 100 days old, never launched"),
        (facts(launched=days_ago(40)), ALL, "deregister", "last launched 40 days ago"),
        (facts(launched=days_ago(10)), ALL, "keep", "launched 10 days ago"),
        (facts(80), ALL, "keep", "only 80 days old"),
        (facts(use="channel prod"), ALL, "keep", "channel prod"),
        (facts(seen=None), ALL, "forget", "EC2 no longer has it"),
        (facts(seen=None, use="channel prod"), ALL, "keep", "channel prod"),
        (facts(5, removed=True), ALL, "deregister", "the image was removed"),
        (facts(5, removed=True, use="instance i-1 is running"), ALL, "keep", "instance i-1"),
        (facts(shared_with=2), ALL, "keep", "shared with 2 others"),
        (facts(shared_with=2), Rules(keep=1, shared=True, disable=True), "disable", "unused"),
        (facts(seen={"State": "available", "DeregistrationProtection": "enabled-with-cooldown"}), ALL, "keep", "protected"),
        (facts(seen={"State": "available", "DeregistrationProtection": "enabled"}), Rules(keep=1, disable=True), "keep", "protected"),
        (facts(40, shared_with=2), Rules(keep=1, deprecate_after=30 * DAY), "keep", "shared with 2 others"),
        (facts(40, shared_with=2), Rules(keep=1, deprecate_after=30 * DAY, shared=True), "deprecate", "40 days old"),
        (facts(seen={"State": "disabled"}), Rules(keep=1, disable=True), "keep", "already disabled"),
        (facts(), Rules(keep=1), "candidate", "unused"),
        (facts(), Rules(keep=1, deprecate_after=30 * DAY), "deprecate", "unused"),
        (facts(40), Rules(keep=1, deprecate_after=30 * DAY, deregister=True), "deprecate", "unused, 40 days old"),
        (facts(40, seen={"State": "available", "DeprecationTime": "2026"}), Rules(keep=1, deprecate_after=30 * DAY), "keep", "only 40"),
    ],
)
def test_the_rules(one: Facts, rules: Rules, action: str, why: str) -> None:
    verdicts = {verdict.publication.reference: verdict for verdict in judge([one, facts(1, number=9)], rules, NOW)}
    assert verdicts["ami-9"].why == "one of the newest 1"
    assert verdicts["ami-1"].action == action
    assert why in verdicts["ami-1"].why


class Shop:
    """Six versions of web, 10 to 15 months old, each with an AMI of its own, and their catalog."""

    def __init__(self, cloud: Emulator, directory: Path) -> None:
        self.cloud, self.ec2 = cloud, cloud.client("ec2")
        self.catalog, self.images = Catalog(directory / "catalog.sqlite"), [an_image("web", f"1.{n}.0", n + 1) for n in range(6)]
        self.amis: list[str] = []
        for number, image in enumerate(self.images):
            ami = cloud.seed_image(f"web-{image.version}", owner=ACCOUNT, public=False)
            self.amis.append(ami)
            self.catalog.register(a_build(image), image)
            self.catalog.publish(Publication(image.id, "ami", ami, REGION, ACCOUNT, created=days_ago(450 - 30 * number)))
        self.work = Lifecycle(self.catalog, KeyedAws(cloud), Clock())

    def verdicts(self, rules: Rules = ALL) -> Mapping[str, RetentionDecision]:
        return {one.image.version: one for one in self.work.plan("web", rules)}

    def snapshot(self, number: int) -> str:
        return str(self.ec2.describe_images(ImageIds=[self.amis[number]])["Images"][0]["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"])

    def there(self) -> set[int]:
        found = self.ec2.describe_images(Filters=[{"Name": "image-id", "Values": self.amis}], IncludeDisabled=True)["Images"]
        return {self.amis.index(image["ImageId"]) for image in found}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("cloud"), delay=0.02) as found:
        yield found


@pytest.fixture
def shop(emulator: Emulator, tmp_path: Path) -> Iterator[Shop]:
    emulator.reset()
    yield Shop(emulator, tmp_path)
    assert emulator.unread == []


def test_what_is_used_is_kept(shop: Shop) -> None:
    assign(shop.catalog, "web", "prod", shop.images[0])
    release = shop.catalog.releases.begin(
        Release("web", 0, shop.images[1].id, "prod", "asg/web", "running", "me", days_ago(1), REGION, ACCOUNT)
    )
    shop.catalog.releases.finish(release, "succeeded", at=days_ago(1))
    shop.ec2.create_launch_template(LaunchTemplateName="web", LaunchTemplateData={"ImageId": shop.amis[2], "InstanceType": "t3.small"})
    shop.ec2.run_instances(ImageId=shop.amis[3], InstanceType="t3.small", MinCount=1, MaxCount=1)
    found = shop.verdicts()
    assert [found[f"1.{n}.0"].action for n in range(6)] == ["keep", "keep", "keep", "keep", "deregister", "keep"]
    whys = [found[f"1.{n}.0"].why for n in range(6)]
    assert whys[:3] == ["channel prod", "release v1 to asg/web", "launch template web, version 1"]
    assert whys[3].startswith("instance i-")
    assert whys[5] == "one of the newest 1"


def test_a_version_that_a_group_names_is_kept_though_it_is_neither_default_nor_latest(shop: Shop) -> None:
    made = shop.ec2.create_launch_template(
        LaunchTemplateName="web", LaunchTemplateData={"ImageId": shop.amis[5], "InstanceType": "t3.small"}
    )
    template = made["LaunchTemplate"]["LaunchTemplateId"]
    for ami in (shop.amis[0], shop.amis[1], shop.amis[2]):
        shop.ec2.create_launch_template_version(LaunchTemplateId=template, SourceVersion="1", LaunchTemplateData={"ImageId": ami})
    shop.cloud.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName="web-prod", LaunchTemplate={"LaunchTemplateId": template, "Version": "2"}, MinSize=0, MaxSize=1,
        DesiredCapacity=0, AvailabilityZones=[ZONE],
    )  # fmt: skip
    found = shop.verdicts()
    assert found["1.0.0"].why == "auto-scaling group web-prod"
    assert found["1.1.0"].action == "deregister", "version 3 is named by nobody"
    assert found["1.2.0"].why == "launch template web, version 4"
    shop.ec2.delete_launch_template_versions(LaunchTemplateId=template, Versions=["2"])
    assert shop.verdicts()["1.0.0"].action == "deregister", "a group that names what is deleted is no error"
    shop.cloud.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName="web-next", LaunchTemplate={"LaunchTemplateId": template, "Version": "3"}, MinSize=0, MaxSize=1,
        DesiredCapacity=0, AvailabilityZones=[ZONE],
    )  # fmt: skip
    assert shop.verdicts()["1.1.0"].why == "auto-scaling group web-next", "the other versions are still looked at"


def test_an_image_that_a_template_names_by_parameter_is_kept(shop: Shop) -> None:
    shop.cloud.client("ssm").put_parameter(Name="/bake/web", Value=shop.amis[0], Type="String", DataType="aws:ec2:image")
    data = {"ImageId": "resolve:ssm:/bake/web", "InstanceType": "t3.small"}
    shop.ec2.create_launch_template(LaunchTemplateName="web", LaunchTemplateData=data)
    assert shop.verdicts()["1.0.0"].why == "launch template web, version 1"


def test_a_plan_changes_nothing_and_applying_takes_the_snapshots_along(shop: Shop) -> None:
    snapshots = [shop.snapshot(number) for number in range(6)]
    shared = shop.snapshot(1)
    shop.ec2.register_image(
        Name="other", RootDeviceName="/dev/xvda", Architecture="x86_64", VirtualizationType="hvm",
        BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": shared}}],
    )  # fmt: skip
    verdicts = shop.work.plan("web", Rules(keep=4, deregister=True, delete_snapshots=True))
    assert shop.there() == {0, 1, 2, 3, 4, 5}
    assert {one.image.version: one.snapshots for one in verdicts if one.action == "deregister"} == {"1.0.0": (snapshots[0],), "1.1.0": ()}
    assert [one.error for one in shop.work.apply(verdicts)] == [""] * 6
    assert shop.there() == {2, 3, 4, 5}
    left = {one["SnapshotId"] for one in shop.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]}
    assert snapshots[0] not in left
    assert shared in left
    assert shop.catalog.publications(shop.images[0].id) == []
    assert shop.catalog.published.of(shop.images[0].id, all=True)[0].removed
    assert "1.0.0" not in shop.verdicts()


def test_deprecating_and_disabling(shop: Shop) -> None:
    shop.work.apply(shop.work.plan("web", Rules(keep=3, deprecate_after=30 * DAY, older_than=420 * DAY, disable=True)))
    seen = shop.ec2.describe_images(ImageIds=shop.amis, IncludeDisabled=True, IncludeDeprecated=True)["Images"]
    states = {image["ImageId"]: (image["State"], bool(image.get("DeprecationTime"))) for image in seen}
    assert [states[ami] for ami in shop.amis] == [
        ("disabled", False),
        ("disabled", False),
        ("available", True),
        *[("available", False)] * 3,
    ]


def test_what_ec2_refuses_is_said_and_the_rest_is_done(shop: Shop) -> None:
    verdicts = shop.work.plan("web", Rules(keep=3, deregister=True))
    shop.cloud.faults.add("DeregisterImage", "InvalidParameterValue")
    ended = shop.work.apply(verdicts)
    assert sorted(bool(one.error) for one in ended if one.action == "deregister") == [False, False, True]
    assert len(shop.there()) == 4


def test_what_is_gone_already_is_forgotten(shop: Shop) -> None:
    shop.ec2.deregister_image(ImageId=shop.amis[0])
    verdicts = shop.work.plan("web", Rules())
    assert [one.image.version for one in verdicts if one.action == "forget"] == ["1.0.0"]
    shop.work.apply(verdicts)
    assert shop.catalog.publications(shop.images[0].id) == []


def test_what_another_account_has_is_not_taken_for_gone(shop: Shop) -> None:
    """With another profile's credentials none of these AMIs may be visible."""
    there = Publication(shop.images[0].id, "ami", "ami-0000000000000beef", REGION, "999999999999", created=days_ago(300))
    shop.catalog.publish(there)
    [found] = [one for one in shop.work.plan("web", ALL) if one.publication.reference == there.reference]
    assert (found.action, found.why) == ("keep", "account 999999999999 owns it")


def test_snapshots_that_could_not_be_deleted_go_the_next_time(shop: Shop) -> None:
    snapshot = shop.snapshot(0)
    publication = shop.catalog.publications(shop.images[0].id)[0]
    shop.catalog.publish(replace(publication, snapshots=(snapshot,)))
    rules = Rules(keep=5, deregister=True, delete_snapshots=True)
    shop.cloud.faults.add("DeleteSnapshot", "InvalidParameterValue")
    assert [one.image.version for one in shop.work.apply(shop.work.plan("web", rules)) if one.error] == ["1.0.0"]
    assert shop.there() == {1, 2, 3, 4, 5}
    found = shop.verdicts(rules)["1.0.0"]
    assert (found.action, found.snapshots) == ("forget", (snapshot,))
    assert [one.error for one in shop.work.apply([found])] == [""]
    assert snapshot not in {one["SnapshotId"] for one in shop.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]}
    assert shop.catalog.publications(shop.images[0].id) == []


def test_what_is_kept_by_now_stays(shop: Shop) -> None:
    verdicts = shop.work.plan("web", Rules(keep=4, deregister=True))
    assign(shop.catalog, "web", "prod", shop.images[0])
    ended = {one.image.version: one for one in shop.work.apply(verdicts)}
    assert (ended["1.0.0"].action, ended["1.0.0"].why) == ("keep", "channel prod")
    assert shop.there() == {0, 2, 3, 4, 5}


def test_what_failed_since_the_last_good_release_may_still_run(shop: Shop) -> None:
    for number, status in ((0, "failed"), (1, "succeeded"), (2, "failed"), (3, "rolled back")):
        asked = Release("web", 0, shop.images[number].id, "prod", "asg/web", "running", "me", days_ago(1), REGION, ACCOUNT)
        shop.catalog.releases.finish(shop.catalog.releases.begin(asked), status, at=days_ago(1))  # type: ignore[arg-type]
    found = shop.verdicts()
    assert [found[f"1.{n}.0"].action for n in range(5)] == ["deregister", "keep", "keep", "deregister", "deregister"]
    assert found["1.2.0"].why == "release v3 to asg/web failed"
