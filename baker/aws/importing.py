"""A snapshot as an AMI: registered, copied to other regions, found again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from baker.aws import ebs, poll
from baker.aws.errors import AwsError, translated
from baker.aws.session import Aws
from baker.clock import Clock
from baker.errors import UsageError
from baker.model import Ami

NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")  # RegisterImage's rule
ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
ROOT_DEVICE = "/dev/xvda"
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

    source: str  # ami-...
    source_region: str
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
            if mine is not None and wanted.snapshot in mine[0].snapshots:
                return mine[0].id
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
    with translated(f"copying {wanted.source} to {wanted.region}"):
        answer = aws.client("ec2", wanted.region).copy_image(
            Name=wanted.name,
            Description=wanted.description[:255],
            SourceImageId=wanted.source,
            SourceRegion=wanted.source_region,
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


def named(aws: Aws, region: str, name: str) -> tuple[Ami, dict[str, str]] | None:
    """The account's own AMI of this name, of which there is at most one in a region, and its tags."""
    found = _describe(aws, region, Owners=["self"], IncludeDisabled=True, Filters=[{"Name": "name", "Values": [name]}])
    return (ami(found[0], region), {tag["Key"]: tag["Value"] for tag in found[0].get("Tags", ())}) if found else None


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
