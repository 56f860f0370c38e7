"""Register a snapshot as an AMI, copy AMIs to other regions, and find them again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from baker.aws import ebs, images, waiter
from baker.aws.errors import AwsError, translated
from baker.aws.session import Aws
from baker.core.clock import Clock
from baker.core.errors import UsageError
from baker.core.model import Ami

NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")  # RegisterImage's rule
ARCHITECTURES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
ROOT_DEVICE = "/dev/xvda"
AVAILABLE_SECONDS = 3600.0


@dataclass(frozen=True)
class Registration:
    """The parameters for RegisterImage."""

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
    """The parameters for CopyImage. With `encrypted` and without `kms_key`, AWS uses the region's default key."""

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
    """Return `name` if it is valid for an AMI. UsageError when it is not."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a valid name for an AMI",
            hint="use 3 to 128 of the characters A-Z a-z 0-9, space and ( ) [ ] . / - ' @ _",
            code="aws.ami-name",
        )
    return name


def register(aws: Aws, wanted: Registration, *, clock: Clock) -> str:
    """Register an AMI and return its ID.

    When an earlier request made it but its answer was lost, returns the ID of that AMI. AwsError when another AMI has the name.
    """

    def ask() -> str:
        try:
            return _register(aws, wanted)
        except AwsError as error:
            mine = named(aws, wanted.region, wanted.name) if error.aws_code == "InvalidAMIName.Duplicate" else None
            if mine is not None and wanted.snapshot in mine[0].snapshots:
                return mine[0].id
            raise

    # A snapshot that has just been completed may not be visible everywhere yet.
    return waiter.wait(ask, f"registering {wanted.name} in {wanted.region}", timeout=waiter.INVISIBLE_SECONDS, clock=clock, longest=5.0)


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
    """Start to copy an AMI to another region, and return the ID of the new AMI."""
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


def wait_available(aws: Aws, region: str, image: str) -> Ami:
    """Wait until the AMI can be launched, and return it. AwsError when it fails."""
    return images.ami(images.wait_available(aws, region, image, timeout=AVAILABLE_SECONDS), region)


def named(aws: Aws, region: str, name: str) -> tuple[Ami, dict[str, str]] | None:
    """The account's own AMI with this name and its tags, or None. Names are unique within an account and region."""
    with translated(f"images in {region}"):
        mine = [{"Name": "name", "Values": [name]}]
        found = aws.client("ec2", region).describe_images(Owners=["self"], IncludeDisabled=True, Filters=mine)["Images"]
    return (images.ami(found[0], region), {tag["Key"]: tag["Value"] for tag in found[0].get("Tags", ())}) if found else None


def is_available(aws: Aws, region: str, image: str) -> bool:
    """Whether an AMI exists and can be launched."""
    try:
        return bool(images.describe(aws, region, image)["State"] == "available")
    except AwsError as error:
        if error.missing:
            return False
        raise
