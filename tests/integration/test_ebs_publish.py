"""A baked image becomes AMIs of the emulated EC2: registered, booted, copied, recorded; and what is left when any of that fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from baker.aws.bootcheck import BootCheck, Instances, StatusChecks
from baker.aws.errors import AwsError, UnreachableError
from baker.aws.resources import reclaim
from baker.aws.session import Aws
from baker.catalog.records import ImageRecord, Publication
from baker.core.errors import BakeError, BuildError, BusyError, HostError, Interrupted, UsageError, VerifyError
from baker.core.events import Memory, Message, Reporter, StageFinished
from baker.core.leases import FileLeases
from baker.core.ledger import Ledger
from baker.core.model import Ami, Disk
from baker.core.resources import Resources
from baker.disks import qemuimg
from baker.publish.ami import AmiTarget
from baker.publish.base import Baked, Published, PublishOptions, PublishRequest
from tests.ec2 import Emulator
from tests.support.aws import IMPATIENT, CloudAws
from tests.support.disks import create_qcow2
from tests.support.fake_app import an_image
from tests.support.until import until

MIB = 1 << 20
REGION, OTHER, THIRD = "eu-central-1", "eu-west-1", "us-east-1"
KEY = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(tmp_path_factory.mktemp("cloud"), delay=0.02) as found:
        yield found


@pytest.fixture
def cloud(emulator: Emulator) -> Emulator:
    emulator.reset()
    return emulator


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    found = create_qcow2(tmp_path_factory.mktemp("disk") / "disk", 4 * MIB)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 1 0 2M", str(found.path)], check=True, capture_output=True)
    return found


class Records:
    """What is published, in memory. `refuse`: the next record cannot be written."""

    def __init__(self) -> None:
        self.all: list[Publication] = []
        self.refuse: BaseException | None = None
        self.after: BaseException | None = None  # a signal just behind the commit

    def add(self, publication: Publication) -> None:
        if self.refuse:
            raise self.refuse
        self.all.append(publication)
        if self.after:
            raise self.after

    def of(self, image_id: str, *, kind: str | None = None, region: str | None = None) -> list[Publication]:
        return [one for one in self.all if one.image == image_id and kind in (None, one.kind) and region in (None, one.region)]


@dataclass
class Check:
    """A boot check that says what it is told to say."""

    error: BaseException | None = None
    booted: list[Ami] = field(default_factory=list)

    def __call__(self, ami: Ami, resources: Resources, report: Reporter) -> None:
        self.booted.append(ami)
        if self.error:
            raise self.error


@dataclass
class Desk:
    """Where images are published from."""

    cloud: Emulator
    root: Path
    disk: Disk
    records: Records = field(default_factory=Records)
    check: Check = field(default_factory=Check)
    memory: Memory = field(default_factory=Memory)

    @property
    def leases(self) -> FileLeases:
        return FileLeases(self.root)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.root / "ledger")

    def request(
        self, image: ImageRecord | None = None, *, disk: Disk | None = None, machine: str = "x86_64", **options: Any
    ) -> PublishRequest:
        wanted = PublishOptions(**({"regions": (REGION,)} | options))
        baked = Baked(image or an_image(), disk or self.disk, machine)
        return PublishRequest(
            baked, wanted, (), self.records, self.ledger, self.leases, self.root / "state", Reporter(self.memory), IMPATIENT
        )

    def target(self, make: Callable[[Aws, PublishRequest], BootCheck] | None = None) -> AmiTarget:
        return AmiTarget(make or (lambda aws, request: self.check), lambda access: CloudAws(self.cloud, access))

    def publish(self, request: PublishRequest | None = None, **options: Any) -> tuple[Published, ...]:
        return self.target().publish(request or self.request(**options))

    def image(self, region: str = REGION) -> dict[str, Any]:
        (found,) = self.cloud.client("ec2", region).describe_images(Owners=["self"])["Images"]
        return dict(found)

    def sweep(self) -> None:
        for run in self.ledger.dead_builds():
            with self.ledger.dead(run) as build:
                assert build is not None
                for entry in build.entries:
                    assert reclaim(entry.kind, entry.details, CloudAws(self.cloud))
                    entry.path.unlink()


@pytest.fixture
def desk(cloud: Emulator, tmp_path: Path, disk: Disk) -> Desk:
    return Desk(cloud, tmp_path, disk)


def tags(found: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in found["Tags"]}


def test_an_ami_is_made_and_recorded(desk: Desk, cloud: Emulator) -> None:
    (published,) = desk.publish(tags={"team": "shop"})
    ami = desk.image()
    publication = published.publication
    assert (publication.reference, publication.region, publication.kind, publication.image) == (
        ami["ImageId"],
        REGION,
        "ami",
        an_image().id,
    )
    assert publication.account == ami["OwnerId"]
    assert desk.records.all == [publication]
    (mapping,) = ami["BlockDeviceMappings"]
    assert publication.snapshots == (mapping["Ebs"]["SnapshotId"],)
    assert (mapping["DeviceName"], mapping["Ebs"]["VolumeType"], mapping["Ebs"]["VolumeSize"]) == ("/dev/xvda", "gp3", 1)
    wanted = {"Name": "web-1.4.0-a0000000", "Architecture": "x86_64", "BootMode": "legacy-bios", "EnaSupport": True, "ImdsSupport": "v2.0",
              "RootDeviceName": "/dev/xvda", "VirtualizationType": "hvm", "Description": "nginx in front of the shop"}  # fmt: skip
    assert {name: ami[name] for name in wanted} == wanted
    (snapshot,) = cloud.client("ec2").describe_snapshots(OwnerIds=["self"])["Snapshots"]
    expected = {"Name": "web-1.4.0-a0000000", "bake:name": "web", "bake:version": "1.4.0", "bake:image": an_image().id, "team": "shop"}
    assert tags(ami) == tags(snapshot)
    assert tags(ami) == {**expected, "bake:digest": an_image().digest, "bake:build": publication.details["run"]}
    assert [one.id for one in desk.check.booted] == [ami["ImageId"]]
    assert desk.ledger.dead_builds() == ()
    assert not [path for path in (desk.root / "state").rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert published.sent == 4 * 512 << 10
    assert [event.stage for event in desk.memory.events if isinstance(event, StageFinished)] == ["upload", "register", "verify"]
    assert cloud.unread == []


def test_firmware_and_architecture(desk: Desk) -> None:
    desk.publish(desk.request(an_image(firmware="uefi"), machine="aarch64"))
    assert (desk.image()["Architecture"], desk.image()["BootMode"]) == ("arm64", "uefi")


def test_what_is_there_already_is_left_alone(desk: Desk, cloud: Emulator) -> None:
    (first,) = desk.publish()
    cloud.clear_calls()
    (again,) = desk.publish()
    assert (again.publication, again.unchanged) == (first.publication, True)
    assert {call["action"] for call in cloud.calls} == {"GetCallerIdentity", "DescribeImages"}


def test_what_was_deregistered_is_published_again(desk: Desk, cloud: Emulator) -> None:
    (first,) = desk.publish()
    cloud.client("ec2").deregister_image(ImageId=first.publication.reference)
    (again,) = desk.publish()
    assert again.publication.reference == desk.image()["ImageId"] != first.publication.reference


def test_force_needs_a_name_that_is_free(desk: Desk, cloud: Emulator) -> None:
    desk.publish()
    with pytest.raises(BuildError, match="already") as error:
        desk.publish(force=True)
    assert "--name" in error.value.hint
    desk.publish(force=True, name="web once more")
    assert len(cloud.client("ec2").describe_images(Owners=["self"])["Images"]) == 2


def test_other_regions_get_copies(desk: Desk, cloud: Emulator) -> None:
    published = desk.publish(regions=(REGION, OTHER, THIRD))
    assert [one.publication.region for one in published] == [REGION, OTHER, THIRD]
    assert [call["action"] for call in cloud.calls].count("StartSnapshot") == 1
    for one in published[1:]:
        ami = desk.image(one.publication.region)
        assert (one.publication.reference, ami["State"], ami["BootMode"]) == (ami["ImageId"], "available", "legacy-bios")
        assert one.publication.details["copied_from"] == published[0].publication.reference
        assert tags(ami)["bake:image"] == an_image().id
        (snapshot,) = cloud.client("ec2", one.publication.region).describe_snapshots(OwnerIds=["self"])["Snapshots"]
        assert tags(snapshot)["bake:build"] == one.publication.details["run"]
    assert len(desk.check.booted) == 1
    assert cloud.unread == []


def test_a_region_more_is_a_copy_only(desk: Desk, cloud: Emulator) -> None:
    desk.publish()
    cloud.clear_calls()
    one, other = desk.publish(regions=(REGION, OTHER))
    assert (one.unchanged, other.unchanged) == (True, False)
    assert "StartSnapshot" not in {call["action"] for call in cloud.calls}


def test_encryption_with_a_key_per_region(desk: Desk, cloud: Emulator) -> None:
    key, other = (cloud.client("kms", region).create_key()["KeyMetadata"]["Arn"] for region in (REGION, OTHER))
    published = desk.publish(regions=(REGION, OTHER, THIRD), kms_keys=(other, key))
    assert [one.publication.details["encrypted"] for one in published] == [True, True, True]
    assert [one.publication.details["kms_key"] for one in published] == [key, other, ""]


def test_the_next_version_sends_the_difference(desk: Desk, cloud: Emulator, tmp_path: Path) -> None:
    (first,) = desk.publish()
    following = qemuimg.create_overlay(desk.disk, tmp_path / "following")
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 5 1M 4k", str(following.path)], check=True, capture_output=True)
    request = desk.request(an_image(version="1.5.0", number=2), disk=following, name="web 1.5.0")
    (second,) = desk.publish(replace(request, earlier=(Baked(an_image(), desk.disk),)))
    assert (second.publication.details["base"], second.sent) == (first.publication.snapshots[0], 512 << 10)
    key = cloud.client("kms").create_key()["KeyMetadata"]["Arn"]
    encrypted = replace(desk.request(an_image(number=3), disk=following, name="encrypted", kms_keys=(key,)), earlier=request.earlier)
    assert desk.publish(encrypted)[0].publication.details["base"] == ""


@pytest.mark.parametrize(
    ("options", "code", "fact"),
    [
        ({"regions": ("Frankfurt",)}, "publish.region", "Frankfurt"),
        ({"regions": (REGION, REGION)}, "publish.region-repeated", f"{REGION} .* 2 times"),
        ({"name": "a*b"}, "aws.ami-name", r"a\*b"),
        ({"boot_mode": "bios"}, "publish.boot-mode", "bios"),
        ({"tags": {"aws:x": "y"}}, "publish.tag-name", "aws:x"),
        ({"tags": {"bake:build": "y"}}, "publish.tag-name", "bake:build"),
        ({"tags": {f"t{number}": "" for number in range(41)}}, "publish.too-many-tags", "41"),
        ({"kms_keys": ("alias/x",)}, "publish.kms-arn", "alias/x"),
        ({"kms_keys": (KEY.replace(REGION, OTHER),)}, "publish.kms-region", OTHER),
        ({"kms_keys": (KEY, KEY.replace("5555", "6666"))}, "publish.kms-repeated", REGION),
        ({"regions": (OTHER, REGION), "kms_keys": (KEY,)}, "publish.kms-missing", "eu-west-1"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    desk: Desk, cloud: Emulator, options: dict[str, Any], code: str, fact: str
) -> None:
    with pytest.raises(UsageError, match=fact) as refused:
        desk.publish(**options)
    assert refused.value.code == code
    assert {call["action"] for call in cloud.calls} <= {"GetCallerIdentity"}


@pytest.mark.parametrize(
    ("changes", "machine", "code"),
    [
        ({"chain": (), "builder": "ec2"}, "x86_64", "image.no-local-disk"),
        ({}, "riscv64", "publish.architecture"),
        ({"firmware": "bios"}, "aarch64", "publish.boot-mode-architecture"),
    ],
)
def test_images_that_cannot_be_amis(desk: Desk, changes: dict[str, Any], machine: str, code: str) -> None:
    with pytest.raises(UsageError) as refused:
        desk.publish(desk.request(an_image(**changes), machine=machine))
    assert refused.value.code == code


def test_a_name_that_somebody_has(desk: Desk, cloud: Emulator) -> None:
    desk.publish(name="web")
    cloud.clear_calls()
    with pytest.raises(BuildError, match=r"eu-central-1 .* web: ami-") as taken:
        desk.publish(desk.request(an_image(number=2), name="web", regions=(OTHER, REGION)))
    assert taken.value.code == "publish.name-taken"
    assert "StartSnapshot" not in {call["action"] for call in cloud.calls}


def test_one_at_a_time(desk: Desk, cloud: Emulator) -> None:
    account = CloudAws(cloud).account
    with (
        desk.leases.exclusive(f"publications/{an_image().id}-{account}") as lease,
        pytest.raises(BusyError, match=f"{lease.owner} is publishing .* {account}") as busy,
    ):
        desk.publish()
    assert busy.value.code == "publish.running"


# --- failures ------------------------------------------------------------------------------------------------------------


def test_an_ami_that_does_not_boot_is_gone(desk: Desk, cloud: Emulator) -> None:
    desk.check.error = VerifyError("no")
    with pytest.raises(VerifyError):
        desk.publish(regions=(REGION, OTHER))
    assert (cloud.inventory(), desk.records.all, desk.ledger.dead_builds()) == ({}, [], ())


@pytest.mark.parametrize("number", [2, 15])
def test_an_interrupt_cleans_up(desk: Desk, cloud: Emulator, number: int) -> None:
    desk.check.error = Interrupted(number)
    with pytest.raises(Interrupted):
        desk.publish()
    assert (cloud.inventory(), desk.ledger.dead_builds()) == ({}, ())


def test_no_verify_boots_nothing(desk: Desk) -> None:
    (published,) = desk.publish(verify=False)
    assert desk.check.booted == []
    assert published.publication.details["verified"] is False


def test_a_record_that_cannot_be_written_leaves_nothing(desk: Desk, cloud: Emulator) -> None:
    desk.records.refuse = BusyError("locked")
    with pytest.raises(BusyError):
        desk.publish()
    assert (cloud.inventory(), desk.ledger.dead_builds()) == ({}, ())


def test_a_signal_just_behind_the_record_takes_nothing_away(desk: Desk, cloud: Emulator) -> None:
    desk.records.after = Interrupted(signal.SIGTERM)
    with pytest.raises(Interrupted):
        desk.publish()
    assert [one.reference for one in desk.records.all] == [desk.image()["ImageId"]]
    assert desk.ledger.dead_builds() == ()


def test_an_answer_to_the_registration_that_is_lost(desk: Desk, cloud: Emulator) -> None:
    cloud.faults.add("RegisterImage", "reset")
    (published,) = desk.publish()
    assert published.publication.reference == desk.image()["ImageId"]
    assert cloud.faults.fired == ["ec2:RegisterImage reset"]


def test_an_image_that_fails(desk: Desk, cloud: Emulator) -> None:
    cloud.faults.add("RegisterImage", "image-failed")
    with pytest.raises(AwsError, match="failed"):
        desk.publish()
    assert (cloud.inventory(), desk.ledger.dead_builds()) == ({}, ())


def test_an_ami_that_is_not_visible_yet_is_given_back(desk: Desk, cloud: Emulator) -> None:
    def invisible(aws: Aws, request: PublishRequest) -> BootCheck:
        def check(ami: Ami, resources: Resources, report: Reporter) -> None:
            cloud.faults.add("DescribeImages", "NotFound", times=2)
            raise Interrupted(2)

        return check

    with pytest.raises(Interrupted):
        desk.target(invisible).publish(desk.request())
    assert (cloud.inventory(), desk.ledger.dead_builds()) == ({}, ())
    assert len(cloud.faults.fired) == 2


def test_an_instance_that_is_not_visible_yet_is_given_back(desk: Desk, cloud: Emulator) -> None:
    def interrupt(ami: Ami, instance: str) -> None:
        cloud.faults.add("DescribeInstances", "NotFound", times=2)
        raise Interrupted(2)

    with pytest.raises(Interrupted), checked(desk, interrupt):
        pass
    assert len(cloud.faults.fired) == 2
    assert settled(cloud, set())


def test_snapshots_that_are_still_in_use_are_waited_for(desk: Desk, cloud: Emulator) -> None:
    cloud.faults.add("DeleteSnapshot", "InUse", times=2)
    desk.records.refuse = BusyError("locked")
    with pytest.raises(BusyError) as error:
        desk.publish()
    assert not hasattr(error.value, "__notes__")
    assert cloud.inventory() == {}


def test_a_copy_whose_snapshot_could_not_be_deleted_is_swept(desk: Desk, cloud: Emulator) -> None:
    cloud.faults.add("CopyImage", "image-failed", region=OTHER)
    cloud.faults.add("DeleteSnapshot", "AccessDenied", region=OTHER, times=2)
    with pytest.raises(BakeError):
        desk.publish(regions=(REGION, OTHER))
    assert len(desk.ledger.dead_builds()) == 1
    assert set(cloud.inventory()[OTHER]) == {"snapshots"}
    cloud.faults.clear()
    desk.sweep()
    assert OTHER not in cloud.inventory()


@pytest.mark.parametrize("kind", ["image-failed", "InvalidParameterValue"])
def test_a_copy_that_fails_does_not_keep_the_others_back(desk: Desk, cloud: Emulator, kind: str) -> None:
    cloud.faults.add("CopyImage", kind, region=OTHER)
    with pytest.raises(BakeError) as error:
        desk.publish(regions=(REGION, OTHER, THIRD))
    assert any(THIRD in note for note in error.value.__notes__)
    assert {one.region for one in desk.records.all} == {REGION, THIRD}
    assert OTHER not in cloud.inventory()
    assert desk.ledger.dead_builds() == ()
    cloud.faults.clear()
    assert [one.unchanged for one in desk.publish(regions=(REGION, OTHER, THIRD))] == [True, False, True]


@pytest.mark.parametrize("action", ["GetCallerIdentity", "StartSnapshot", "PutSnapshotBlock", "CompleteSnapshot", "DescribeSnapshots",
                                    "RegisterImage", "DescribeImages", "CopyImage", "CreateTags"])  # fmt: skip
@pytest.mark.parametrize("kind", ["AccessDenied", "InvalidParameterValue"])
def test_wherever_it_fails_nothing_is_left_that_nobody_knows(desk: Desk, cloud: Emulator, action: str, kind: str) -> None:
    cloud.faults.add(action, kind, skip=1 if action == "PutSnapshotBlock" else 0)
    with pytest.raises(BakeError):
        desk.publish(regions=(REGION, OTHER))
    cloud.faults.clear()
    desk.sweep()
    left = {thing for kinds in cloud.inventory().values() for things in kinds.values() for thing in things}
    assert left == {part for one in desk.records.all for part in (one.reference, *one.snapshots)}
    desk.publish(regions=(REGION, OTHER))  # and it can be done again


def test_without_credentials_that_last_it_goes_on_later(desk: Desk, cloud: Emulator) -> None:
    cloud.faults.add("PutSnapshotBlock", "ExpiredToken", skip=2, times=30)
    with pytest.raises(BakeError) as error:
        desk.publish()
    assert "run the same command to resume" in "".join(error.value.__notes__)
    (snapshot,) = cloud.client("ec2").describe_snapshots(OwnerIds=["self"])["Snapshots"]
    assert len(desk.ledger.dead_builds()) == 1
    cloud.faults.clear()
    (published,) = desk.publish()
    assert published.publication.snapshots == (snapshot["SnapshotId"],)
    assert desk.ledger.dead_builds() == ()


@pytest.mark.parametrize("error", [HostError("the disk is full"), BuildError("no")])
def test_what_a_repeat_cannot_go_on_with_is_taken_away(desk: Desk, cloud: Emulator, error: BakeError) -> None:
    desk.check.error = error
    with pytest.raises(BakeError):
        desk.publish()
    assert (cloud.inventory(), desk.ledger.dead_builds()) == ({}, ())


def test_what_may_not_be_sent_is_taken_away(desk: Desk, cloud: Emulator) -> None:
    cloud.faults.add("PutSnapshotBlock", "AccessDenied", times=30)
    with pytest.raises(HostError, match="not allowed"):
        desk.publish()
    assert (cloud.inventory(), desk.ledger.dead_builds()) == ({}, ())


@pytest.mark.parametrize("region", [REGION, OTHER])
def test_what_stood_before_stays_when_it_cannot_be_put_on_record(desk: Desk, cloud: Emulator, region: str) -> None:
    desk.publish(regions=(REGION, OTHER))
    desk.records.all = [one for one in desk.records.all if one.region != region]
    desk.records.refuse = BusyError("locked")
    cloud.clear_calls()
    with pytest.raises(BusyError):
        desk.publish(regions=(REGION, OTHER))
    desk.records.refuse = None
    desk.sweep()
    desk.publish(regions=(REGION, OTHER))
    assert {one.region for one in desk.records.all} == {REGION, OTHER}
    made_or_taken = {"StartSnapshot", "CopyImage", "DeregisterImage", "DeleteSnapshot"}
    assert made_or_taken & {call["action"] for call in cloud.calls} == set()


def test_what_lacks_only_its_record_is_put_on_record(desk: Desk, cloud: Emulator) -> None:
    first = desk.publish(regions=(REGION, OTHER))
    desk.records.all.clear()
    cloud.clear_calls()
    again = desk.publish(regions=(REGION, OTHER))
    assert [one.publication.reference for one in again] == [one.publication.reference for one in first]
    assert {"StartSnapshot", "CopyImage"} & {call["action"] for call in cloud.calls} == set()
    assert len(desk.check.booted) == 2
    assert tags(desk.image())["bake:build"] == again[0].publication.details["run"]


# --- booting -------------------------------------------------------------------------------------------------------------


def settled(cloud: Emulator, kinds: set[str]) -> bool:
    """True once there are only things of these kinds: instances that are being terminated go in time."""
    return until(
        lambda: set(cloud.inventory().get(REGION, {})) == kinds, 30, lambda: f"{cloud.inventory().get(REGION, {})} has {kinds} alone"
    )


@contextmanager
def checked(desk: Desk, answers: Callable[[Ami, str], None] | None = None, timeout: float = 20) -> Iterator[None]:
    """Publish with AWS's own status checks."""
    desk.target(lambda aws, request: StatusChecks(aws, request.clock, Instances(aws), answers, timeout)).publish(desk.request())
    yield


def test_an_instance_passes_its_status_checks(desk: Desk, cloud: Emulator) -> None:
    asked: list[str] = []
    with checked(desk, lambda ami, instance: asked.append(instance)):
        pass
    calls = [call for call in cloud.calls if call["action"] == "RunInstances"]
    assert [call["parameters"]["InstanceType"] for call in calls] == ["t3.micro"]
    assert len(asked) == 1
    assert settled(cloud, {"images", "snapshots"})
    assert cloud.unread == []


@pytest.mark.parametrize("kind", ["instance-fails", "impaired"])
def test_an_instance_that_does_not_pass(desk: Desk, cloud: Emulator, kind: str) -> None:
    cloud.faults.add("RunInstances", kind)
    with pytest.raises(VerifyError, match="ami-") as failure, checked(desk, timeout=3):
        pass
    assert failure.value.code == "verify.ami-boot"
    assert settled(cloud, set())
    assert desk.ledger.dead_builds() == ()


def test_an_instance_that_cannot_be_terminated_is_told_and_swept(desk: Desk, cloud: Emulator) -> None:
    cloud.faults.add("TerminateInstances", "AccessDenied")
    with checked(desk):
        pass
    assert len(desk.records.all) == 1
    (warning,) = [event for event in desk.memory.events if isinstance(event, Message) and event.level == "warning"]
    assert "is still running" in warning.text
    assert "bake sweep" in warning.hint
    assert settled(cloud, {"images", "snapshots", "instances", "volumes", "interfaces"}), cloud.inventory()
    desk.sweep()
    assert settled(cloud, {"images", "snapshots"})


def test_a_check_that_is_repeated_starts_a_new_instance(desk: Desk, cloud: Emulator) -> None:
    def cut_off(ami: Ami, instance: str) -> None:
        raise UnreachableError("no network")

    with pytest.raises(UnreachableError), checked(desk, cut_off):
        pass
    with checked(desk):
        pass
    tokens = {call["parameters"]["ClientToken"] for call in cloud.calls if call["action"] == "RunInstances"}
    assert len(tokens) == 2
    assert [call["action"] for call in cloud.calls].count("StartSnapshot") == 1
    assert settled(cloud, {"images", "snapshots"})


def test_an_instance_that_cannot_be_started(desk: Desk, cloud: Emulator) -> None:
    cloud.faults.add("RunInstances", "VcpuLimitExceeded")
    with pytest.raises(AwsError, match="vCPU"), checked(desk):
        pass
    assert cloud.inventory() == {}


# --- the whole command -----------------------------------------------------------------------------------------------------


def test_the_command_line_against_the_emulator(cloud: Emulator, tmp_path: Path) -> None:
    from baker.api import Baker
    from baker.core.home import Home
    from baker.disks.raw import raw_digest
    from tests.support.fake_app import fill

    env = {"BAKE_HOME": str(tmp_path / "home")}
    with Baker(Home.from_environment(env)) as bake:
        made = create_qcow2(tmp_path / "disk", 4 * MIB)
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 1 0 1M", str(made.path)], check=True, capture_output=True)
        digest = raw_digest(made)
        blob = bake.store.add_disk(made, None)
        fill(bake, an_image(digest=digest, chain=(blob,), virtual_size=4 * MIB))
    argv = [sys.executable, "-m", "baker", "publish", "web", "--to", "ami", "--json", "--tag", "team=shop", "--region", f"{REGION},{OTHER}"]
    ended = subprocess.run(argv, env={**os.environ, **cloud.env, **env}, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert [one["region"] for one in said] == [REGION, OTHER]
    with Baker(Home.from_environment(env)) as bake:
        assert [one.reference for one in bake.catalog.publications(an_image().id)] == [one["reference"] for one in said]
    assert "verify done" in ended.stderr
    assert (cloud.unread, cloud.denied) == ([], [])
