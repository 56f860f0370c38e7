"""The AMIs of a build: create one from a stopped instance, copy, share and protect it; delete it when the build fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from baker.aws import images
from baker.aws.errors import AwsError, translated
from baker.core.model import Ami
from baker.core.resources import Resources
from baker.machines.ec2.network import code_of
from baker.machines.ec2.scope import IMAGE, Scope, filters
from baker.template.ec2 import Ec2Spec, ami_name

LOOKS, LOOK_AGAIN_SECONDS = 3, 2.0  # polls for an AMI whose creation was not answered: it may become visible late
MOST_AT_ONCE = 16
T = TypeVar("T")


def name_of(scope: Scope, spec: Ec2Spec) -> str:
    """The AMI's name, in all regions."""
    return ami_name(spec.ami_name, name=scope.image.name, version=scope.image.version, build=scope.build)


def description_of(scope: Scope, spec: Ec2Spec) -> str:
    """The AMI's description: at most 255 characters; a character outside of ASCII becomes "?"."""
    text = spec.ami_description or scope.image.description or f"{scope.image.name} {scope.image.version}, baked by bake"
    return text.encode("ascii", "replace").decode()[:255]


def hold(scope: Scope, name: str, resources: Resources) -> None:
    """Enter the AMI `name` in the ledger before it is created. It is kept once the build is recorded."""
    resources.enter(IMAGE, lambda: remove_by_name(scope, name), **scope.details, name=name, lasting=True)


def create(scope: Scope, spec: Ec2Spec, instance: str, resources: Resources) -> Ami:
    """Create an AMI from a stopped instance, with tags on it and on its snapshots, and wait until it is available."""
    name = name_of(scope, spec)
    hold(scope, name, resources)
    with translated(f"create the image {name}"):
        try:
            made = scope.client.create_image(
                InstanceId=instance,
                Name=name,
                Description=description_of(scope, spec),
                NoReboot=True,
                TagSpecifications=scope.tag_specifications("image", "snapshot", name=name),
            )["ImageId"]
        except Exception as error:
            made = _already_made(scope, name, error)
    return images.ami(images.wait_available(scope.aws, scope.region, made, timeout=spec.ami_timeout), scope.region)


def _already_made(scope: Scope, name: str, error: Exception) -> str:
    """The id of this build's image with a name that is taken: the answer to the first request was lost. Else raises `error`."""
    if code_of(error) == "InvalidAMIName.Duplicate":
        for found in scope.client.describe_images(Owners=["self"], Filters=filters(name=name, build=scope.build))["Images"]:
            return str(found["ImageId"])
    raise error


def copy(
    scope: Scope, spec: Ec2Spec, ami: Ami, *, regions: Sequence[str], resources: Resources, progress: Callable[[int, int], None]
) -> dict[str, Ami]:
    """Copy `ami` to `regions` at the same time, and wait until all copies are available. `progress` gets (copies done, all copies)."""
    scopes = [scope_in(scope, region) for region in regions]
    for each in scopes:
        hold(each, ami.name, resources)
    done = [0]

    def one(each: Scope, stopped: Callable[[], bool]) -> Ami:
        made = _copy(each, spec, ami)
        found = images.wait_available(each.aws, each.region, made, timeout=spec.copy_timeout, stopped=stopped)
        done[0] += 1
        progress(done[0], len(scopes))
        return images.ami(found, each.region)

    return dict(zip(regions, in_parallel([partial(one, each) for each in scopes]), strict=True))


def _copy(scope: Scope, spec: Ec2Spec, ami: Ami) -> str:
    extra: dict[str, Any] = {}
    if spec.encrypted or ami.encrypted:
        key = spec.region_kms_key_ids.get(scope.region)
        extra = {"Encrypted": True} | ({"KmsKeyId": key} if key else {})
    with translated(f"copy the image {ami.id} to {scope.region}"):
        answer = scope.client.copy_image(
            ClientToken=f"bake-{scope.build}-{scope.region}",
            SourceImageId=ami.id,
            SourceRegion=ami.region,
            Name=ami.name,
            Description=description_of(scope, spec),
            TagSpecifications=scope.tag_specifications("image", "snapshot", name=ami.name),
            **extra,
        )
    return str(answer["ImageId"])


def scope_in(scope: Scope, region: str) -> Scope:
    return Scope(scope.aws, region, scope.build, scope.image, scope.machine, scope.extra_tags)


# -- access, deprecation, protection ------------------------------------------------------------------------------------------


def finish(scope: Scope, spec: Ec2Spec, ami: Ami) -> None:
    """Share an available AMI, and set its IMDS support and deprecation date."""
    _share(scope, spec, ami)
    client = scope.client
    if spec.imds_support:
        with translated(f"the IMDS support of {ami.id}"):
            client.modify_image_attribute(ImageId=ami.id, Attribute="imdsSupport", ImdsSupport={"Value": spec.imds_support})
    if moment := deprecation(spec, scope.aws.clock.date()):
        with translated(f"the deprecation date of {ami.id}"):
            client.enable_image_deprecation(ImageId=ami.id, DeprecateAt=moment)


def protect(scope: Scope, spec: Ec2Spec, ami: Ami) -> None:
    """Protect an AMI from deregistration. Call it last: a protected AMI cannot be removed when something else fails."""
    if spec.deregistration_protection.enabled:
        with translated(f"the protection of {ami.id}"):
            scope.client.enable_image_deregistration_protection(ImageId=ami.id, WithCooldown=spec.deregistration_protection.with_cooldown)


def deprecation(spec: Ec2Spec, now: float) -> datetime | None:
    """The deprecation date of the image, if it has one. `now`: seconds since the epoch. AWS rounds to whole minutes."""
    if spec.deprecate_at:
        return datetime.fromisoformat(spec.deprecate_at)
    if spec.deprecate_after:
        return datetime.fromtimestamp(now + spec.deprecate_after, UTC).replace(second=0, microsecond=0)
    return None


def _share(scope: Scope, spec: Ec2Spec, ami: Ami) -> None:
    granted = [{"UserId": each} for each in spec.ami_users]
    granted += [{"OrganizationArn": each} for each in spec.ami_org_arns]
    granted += [{"OrganizationalUnitArn": each} for each in spec.ami_ou_arns]
    if granted:
        with translated(f"share {ami.id}"):
            scope.client.modify_image_attribute(ImageId=ami.id, LaunchPermission={"Add": granted})
    accounts = [{"UserId": each} for each in dict.fromkeys([*spec.ami_users, *spec.snapshot_users])]
    for snapshot in ami.snapshots if accounts else ():
        with translated(f"share {snapshot}"):
            scope.client.modify_snapshot_attribute(
                SnapshotId=snapshot, Attribute="createVolumePermission", CreateVolumePermission={"Add": accounts}
            )


# -- removal ------------------------------------------------------------------------------------------------------------------


def remove_by_name(scope: Scope, name: str) -> None:
    """Deregister this build's AMI with that name and delete its snapshots, which may exist without the AMI."""
    for number in range(LOOKS):
        if number:
            scope.aws.clock.sleep(LOOK_AGAIN_SECONDS * number)
        with translated(f"images in {scope.region}"):
            mine = filters(name=name, build=scope.build)
            found = scope.client.describe_images(Owners=["self"], Filters=mine, IncludeDisabled=True)["Images"]
        if found:
            break
    for image in found:
        images.delete(scope.aws, scope.region, image)
    with translated(f"snapshots in {scope.region}"):
        pages = scope.client.get_paginator("describe_snapshots").paginate(OwnerIds=["self"], Filters=filters(build=scope.build))
        left = [snapshot["SnapshotId"] for page in pages for snapshot in page["Snapshots"] if _named(snapshot, name)]
    images.delete_snapshots(scope.aws, scope.region, left)


def _named(snapshot: Mapping[str, Any], name: str) -> bool:
    return any(tag["Key"] == "Name" and tag["Value"] == name for tag in snapshot.get("Tags", ()))


def in_parallel(calls: Sequence[Callable[[Callable[[], bool]], T]]) -> list[T]:
    """Run all `calls` at the same time and return their results in order.

    Each gets a function that returns whether to stop, because another call failed or the build is interrupted. When all have ended, the
    first error is raised; an error of a stopped call only when there is no other.
    """
    if not calls:
        return []
    stopped = threading.Event()

    def one(call: Callable[[Callable[[], bool]], T]) -> T:
        try:
            return call(stopped.is_set)
        except BaseException:
            stopped.set()
            raise

    with ThreadPoolExecutor(min(len(calls), MOST_AT_ONCE), thread_name_prefix="region") as pool:
        futures = [pool.submit(one, call) for call in calls]
        try:
            errors = [error for future in futures if (error := future.exception())]
        except BaseException:
            stopped.set()
            raise
    for error in sorted(errors, key=lambda error: isinstance(error, AwsError) and error.aws_code == "Stopped"):
        raise error
    return [future.result() for future in futures]
