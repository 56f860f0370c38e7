"""Describe, wait for and delete AMIs and their snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from baker.aws.errors import AwsError, translated
from baker.aws.session import Aws
from baker.aws.waiter import wait
from baker.core.model import Ami

GIB = 1 << 30
FAILED = frozenset({"failed", "error", "invalid", "deregistered", "disabled"})
IN_USE_SECONDS = 60.0  # how long a snapshot may still be in use by an image that was just deregistered
LOOKS_BEFORE_SNAPSHOTS = 3  # polls of a pending image before its snapshots are polled, too


def describe(aws: Aws, region: str, image_id: str) -> dict[str, Any]:
    """DescribeImages' answer for one image, which may be disabled. AwsError (`missing`) when it does not exist or is not visible yet."""
    with translated(f"the image {image_id} in {region}"):
        found: list[dict[str, Any]] = aws.client("ec2", region).describe_images(ImageIds=[image_id], IncludeDisabled=True)["Images"]
    if not found:
        raise AwsError(
            f"there is no image {image_id} in {region}",
            aws_code="InvalidAMIID.NotFound",
            action="DescribeImages",
            hint="check its ID and the region",
            code="aws.not-found",
        )
    return found[0]


def search(
    aws: Aws, region: str, filters: Mapping[str, Sequence[str]], owners: Sequence[str] = ("self",), *, deprecated: bool = False
) -> list[dict[str, Any]]:
    """DescribeImages' answer for a search, the oldest image first. With `deprecated`, deprecated images of other owners are included."""
    wanted = [{"Name": name, "Values": list(values)} for name, values in filters.items()]
    with translated(f"images in {region}"):
        pages = aws.client("ec2", region).get_paginator("describe_images")
        extra = {"IncludeDeprecated": True} if deprecated else {}
        found = [image for page in pages.paginate(Filters=wanted, Owners=list(owners), **extra) for image in page["Images"]]
    return sorted(found, key=lambda image: (str(image.get("CreationDate", "")), image["ImageId"]))


def ami(found: Mapping[str, Any], region: str) -> Ami:
    """Convert an answer of DescribeImages to a value. The root device's snapshot is the first."""
    volumes = [mapping for mapping in found.get("BlockDeviceMappings", ()) if "Ebs" in mapping]
    root = str(found.get("RootDeviceName", ""))
    volumes.sort(key=lambda mapping: mapping.get("DeviceName") != root)
    first: Mapping[str, Any] = volumes[0]["Ebs"] if volumes else {}
    return Ami(
        id=found["ImageId"],
        region=region,
        name=str(found.get("Name", "")),
        owner=str(found.get("OwnerId", "")),
        creation_date=str(found.get("CreationDate", "")),
        architecture=str(found.get("Architecture", "")),
        root_device=root,
        virtual_size=int(first.get("VolumeSize", 0)) * GIB,
        snapshots=tuple(mapping["Ebs"]["SnapshotId"] for mapping in volumes if "SnapshotId" in mapping["Ebs"]),
        boot_mode=str(found.get("BootMode", "")),
        encrypted=bool(first.get("Encrypted", False)),
        devices=tuple(str(mapping["DeviceName"]) for mapping in volumes if "DeviceName" in mapping),
    )


def wait_available(aws: Aws, region: str, image_id: str, *, timeout: float, stopped: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Wait until an image is available, and return its description.

    AwsError when the image or a snapshot of it fails, after `timeout` seconds, or when `stopped` returns True.
    """
    looks = 0

    def look() -> dict[str, Any] | None:
        nonlocal looks
        looks += 1
        if stopped():
            raise AwsError(f"the wait for the image {image_id} in {region} was stopped", aws_code="Stopped", code="aws.stopped")
        found = describe(aws, region, image_id)
        if found["State"] in FAILED:
            reason = found.get("StateReason", {}).get("Message") or "AWS gives no reason"
            raise AwsError(
                f"the image {image_id} in {region} is {found['State']}: {reason}",
                aws_code="ImageFailed",
                action="DescribeImages",
                code="aws.image-failed",
            )
        if found["State"] == "available":
            return found
        if looks > LOOKS_BEFORE_SNAPSHOTS:
            _check_snapshots(aws, region, found)
        return None

    return wait(look, f"the image {image_id} in {region} is not available", timeout=timeout, clock=aws.clock)


def _check_snapshots(aws: Aws, region: str, found: Mapping[str, Any]) -> None:
    """Raise AwsError when a snapshot of a pending image has failed: the image itself may show this only after hours."""
    snapshots = ami(found, region).snapshots
    if not snapshots:
        return
    with translated(f"snapshots in {region}"):
        answer = aws.client("ec2", region).describe_snapshots(SnapshotIds=list(snapshots))
    for snapshot in answer["Snapshots"]:
        if snapshot["State"] == "error":
            reason = snapshot.get("StateMessage") or "AWS gives no reason"
            name = snapshot["SnapshotId"]
            raise AwsError(
                f"the snapshot {name} of {found['ImageId']} in {region} failed: {reason}",
                aws_code="SnapshotFailed",
                code="aws.snapshot-failed",
            )


def remove(aws: Aws, region: str, image_id: str) -> None:
    """Deregister an image and delete its snapshots. Does nothing when the image does not exist."""
    try:
        found = describe(aws, region, image_id)
    except AwsError as error:
        if error.missing:
            return
        raise
    delete(aws, region, found)


def delete(aws: Aws, region: str, found: Mapping[str, Any]) -> None:
    """Deregister an image, given its description, and delete its snapshots. A deregistration protection is removed first."""
    client, image_id = aws.client("ec2", region), found["ImageId"]
    if found.get("DeregistrationProtection", "disabled") not in ("disabled", ""):
        with translated(f"the protection of the image {image_id} in {region}"):
            client.disable_image_deregistration_protection(ImageId=image_id)
    with ignore_missing(), translated(f"deregister the image {image_id} in {region}"):
        client.deregister_image(ImageId=image_id)
    delete_snapshots(aws, region, ami(found, region).snapshots)


def delete_snapshots(aws: Aws, region: str, snapshots: Sequence[str], *, patience: float = IN_USE_SECONDS) -> None:
    """Delete snapshots. A missing snapshot is no error.

    `patience` is the time in seconds for which snapshots of an image that was just deregistered may still be in use. The first error is
    raised after all snapshots have been tried.
    """
    until = aws.clock.now() + patience
    errors: list[AwsError] = []
    for snapshot in snapshots:
        try:
            _delete_snapshot(aws, region, snapshot, until)
        except AwsError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _delete_snapshot(aws: Aws, region: str, snapshot: str, until: float) -> None:
    def ask() -> bool | None:
        try:
            with ignore_missing(), translated(f"delete the snapshot {snapshot} in {region}"):
                aws.client("ec2", region).delete_snapshot(SnapshotId=snapshot)
        except AwsError as error:
            if error.aws_code != "InvalidSnapshot.InUse" or aws.clock.now() >= until:
                raise
            return None
        return True

    wait(ask, f"deleting the snapshot {snapshot} in {region}", timeout=IN_USE_SECONDS, clock=aws.clock, longest=5.0)


@contextmanager
def ignore_missing() -> Iterator[None]:
    """Ignore an AwsError of the body, a deletion, for a resource that does not exist."""
    try:
        yield
    except AwsError as error:
        if not error.missing:
            raise
