"""A snapshot as an AMI: registered, copied to other regions, found again, given back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from baker.aws import ebs, poll
from baker.aws.errors import AwsError, translated
from baker.aws.session import Access, Aws
from baker.clock import Clock
from baker.errors import UsageError
from baker.model import Ami

NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")  # RegisterImage's rule
ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
ROOT_DEVICE = "/dev/xvda"
BUILD_TAG = "bake:build"
KINDS = ("ec2:image", "ec2:snapshot")
AVAILABLE_SECONDS = 3600.0
NEVER = frozenset({"failed", "error", "invalid", "deregistered", "disabled", "transient"})


@dataclass(frozen=True)
class Registration:
    """What RegisterImage is asked for."""

    region: str
    name: str
    snapshot: str
    size: int  # bytes
    architecture: str  # x86_64, arm64
    boot_mode: str  # legacy-bios, uefi, uefi-preferred
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Copy:
    """What CopyImage is asked for. `kms_key` "": the region's own key where `encrypted`."""

    source: Ami
    region: str
    name: str
    token: str
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    encrypted: bool = False
    kms_key: str = ""


def check_name(name: str) -> str:
    """`name` if an AMI can be called so. UsageError when not."""
    if not NAME.fullmatch(name):
        raise UsageError(f"an AMI cannot be called {name!r}", hint="3 to 128 of the letters A-Z a-z 0-9, blank and ( ) [ ] . / - ' @ _")
    return name


def register(aws: Aws, wanted: Registration, *, clock: Clock) -> str:
    """The id of a new AMI of a snapshot; of the one that a request whose answer was lost has made. AwsError when its name is taken."""

    def ask() -> str:
        try:
            return _register(aws, wanted)
        except AwsError as error:
            mine = named(aws, wanted.region, wanted.name) if error.code == "InvalidAMIName.Duplicate" else None
            if mine is not None and wanted.snapshot in mine.snapshots:
                return mine.id
            raise

    # a snapshot that has just been completed may not be known everywhere
    return poll.wait(ask, f"registering {wanted.name} in {wanted.region}", timeout=poll.INVISIBLE_SECONDS, clock=clock, longest=5.0)


def _register(aws: Aws, wanted: Registration) -> str:
    with translated(f"registering {wanted.name} in {wanted.region}"):
        answer = aws.client("ec2", wanted.region).register_image(
            Name=wanted.name,
            Description=wanted.description[:255],
            Architecture=wanted.architecture,
            BootMode=wanted.boot_mode,
            VirtualizationType="hvm",
            EnaSupport=True,
            ImdsSupport="v2.0",
            RootDeviceName=ROOT_DEVICE,
            BlockDeviceMappings=[
                {
                    "DeviceName": ROOT_DEVICE,
                    "Ebs": {
                        "SnapshotId": wanted.snapshot,
                        "VolumeSize": ebs.gib(wanted.size),
                        "VolumeType": "gp3",
                        "DeleteOnTermination": True,
                    },
                }
            ],
            TagSpecifications=_tags(wanted.tags, "image"),
        )
    return str(answer["ImageId"])


def copy(aws: Aws, wanted: Copy) -> str:
    """Start the copy of an AMI to another region; the id of what will be there."""
    more: dict[str, Any] = {}
    if wanted.encrypted or wanted.kms_key:
        more = {"Encrypted": True} | ({"KmsKeyId": wanted.kms_key} if wanted.kms_key else {})
    with translated(f"copying {wanted.source.id} to {wanted.region}"):
        answer = aws.client("ec2", wanted.region).copy_image(
            Name=wanted.name,
            Description=wanted.description[:255],
            SourceImageId=wanted.source.id,
            SourceRegion=wanted.source.region,
            ClientToken=wanted.token,
            TagSpecifications=_tags(wanted.tags, "image", "snapshot"),
            **more,
        )
    return str(answer["ImageId"])


def _tags(tags: Mapping[str, str], *kinds: str) -> list[dict[str, Any]]:
    listed = [{"Key": key, "Value": value} for key, value in tags.items()]
    return [{"ResourceType": kind, "Tags": listed} for kind in kinds] if listed else []


def wait_available(aws: Aws, region: str, image: str, *, clock: Clock, timeout: float = AVAILABLE_SECONDS) -> Ami:
    """The AMI once it can be launched. AwsError for one that fails."""

    def look() -> Ami | None:
        found = _describe(aws, region, ImageIds=[image])
        if not found:
            raise AwsError(f"there is no {image} in {region}", code="InvalidAMIID.NotFound")
        if found[0]["State"] in NEVER:
            reason = found[0].get("StateReason", {}).get("Message") or found[0]["State"]
            raise AwsError(f"{image} in {region} failed: {reason}", code="ImageFailed")
        return ami(found[0], region) if found[0]["State"] == "available" else None

    return poll.wait(look, f"{image} in {region}", timeout=timeout, clock=clock)


def named(aws: Aws, region: str, name: str) -> Ami | None:
    """Our AMI of this name: there is at most one in a region."""
    found = _describe(aws, region, Owners=["self"], Filters=[{"Name": "name", "Values": [name]}])
    return ami(found[0], region) if found else None


def standing(aws: Aws, region: str, image: str) -> Ami | None:
    """The AMI if it still is there and can be launched."""
    try:
        found = _describe(aws, region, ImageIds=[image])
    except AwsError as error:
        if error.missing:
            return None
        raise
    return ami(found[0], region) if found and found[0]["State"] == "available" else None


def _describe(aws: Aws, region: str, **what: Any) -> list[dict[str, Any]]:
    with translated(f"looking for AMIs in {region}"):
        return list(aws.client("ec2", region).describe_images(**what)["Images"])


def ami(found: Mapping[str, Any], region: str) -> Ami:
    """What DescribeImages says of one AMI."""
    disks = [mapping["Ebs"] for mapping in found.get("BlockDeviceMappings", ()) if "Ebs" in mapping]
    return Ami(
        id=found["ImageId"],
        region=region,
        name=found.get("Name", ""),
        owner=found.get("OwnerId", ""),
        creation_date=found.get("CreationDate", ""),
        architecture=found.get("Architecture", ""),
        root_device=found.get("RootDeviceName", ""),
        virtual_size=disks[0].get("VolumeSize", 0) * ebs.GIB if disks else 0,
        snapshots=tuple(disk["SnapshotId"] for disk in disks if disk.get("SnapshotId")),
        boot_mode=found.get("BootMode", ""),
        encrypted=any(disk.get("Encrypted") for disk in disks),
    )


# --- giving back ---------------------------------------------------------------------------------------------------------


def discard(aws: Aws, region: str, kind: str, *, id: str = "", build: str = "") -> None:  # noqa: A002 - the ledger's word
    """Take an AMI (with its snapshots) or a snapshot away, by its id or by the tag of what made it. Gone already counts as done."""
    for found in [id] if id else list(_of_build(aws, region, kind, build)):
        if kind == "ec2:snapshot":
            ebs.delete(aws, region, found)
        else:
            deregister(aws, region, found)


def deregister(aws: Aws, region: str, image: str) -> None:
    """Deregister an AMI and delete its snapshots; nothing happens where there is none."""
    try:
        found = _describe(aws, region, ImageIds=[image])
        snapshots = ami(found[0], region).snapshots if found else ()
        with translated(f"deregistering {image} in {region}"):
            aws.client("ec2", region).deregister_image(ImageId=image)
    except AwsError as error:
        if not error.missing:
            raise
        return
    for snapshot in snapshots:
        ebs.delete(aws, region, snapshot)


def _of_build(aws: Aws, region: str, kind: str, build: str) -> Iterator[str]:
    if not build:
        return
    ours: dict[str, Any] = {"Filters": [{"Name": f"tag:{BUILD_TAG}", "Values": [build]}]}
    if kind == "ec2:image":
        yield from (found["ImageId"] for found in _describe(aws, region, Owners=["self"], **ours))
        return
    with translated(f"looking for snapshots in {region}"):
        for page in aws.client("ec2", region).get_paginator("describe_snapshots").paginate(OwnerIds=["self"], **ours):
            yield from (found["SnapshotId"] for found in page["Snapshots"])


def reclaim(kind: str, details: Mapping[str, Any]) -> bool:
    """Give back an "ec2:image" or "ec2:snapshot" of a dead process; False for another kind."""
    if kind not in KINDS:
        return False
    aws = Aws(Access(**details.get("access", {})))
    discard(aws, str(details["region"]), kind, id=str(details.get("id", "")), build=str(details.get("build", "")))
    return True
