"""Resources in AWS of a publication: how they are tracked, found again by their tag, and deleted.

A resource belongs to the run whose id is in its tag `bake:build`. One that another run has claimed since is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from baker.aws import images
from baker.aws.errors import translated
from baker.aws.session import Access, Aws
from baker.core.ledger import BuildLedger
from baker.core.resources import Resources

BUILD_TAG = "bake:build"
KINDS = ("ami:image", "ami:snapshot", "ami:instance")
LOOKS, LOOK_AGAIN_SECONDS = 3, 2.0  # before a resource counts as missing: a new one may become visible late
NOT_TERMINATED = ["pending", "running", "stopping", "stopped"]


def track(ledger: BuildLedger, aws: Aws) -> Resources:
    """The resources of a run in AWS, including those that a killed process of the same run left behind."""
    resources = Resources(ledger)
    for entry in reversed(ledger.entries):
        if entry.kind in KINDS:
            resources.adopt(entry, partial(reclaim, entry.kind, entry.details, aws))
    return resources


def create(resources: Resources, aws: Aws, kind: str, *, region: str, name: str, action: Callable[[], str]) -> str:
    """Run `action`, which creates a resource with the tag of the run, and return its ID."""
    access = access_details(aws.access)
    return resources.create(
        kind, action, lambda details: reclaim(kind, details, aws), region=region, name=name, build=resources.run, access=access
    )


def keep_image(resources: Resources, region: str) -> None:
    """Keep an AMI and its snapshots in a region, because they are on record now.

    An instance is never kept: one that is still in the ledger could not be terminated.
    """
    resources.keep("ami:image", region=region)
    resources.keep("ami:snapshot", region=region)


def access_details(access: Access) -> dict[str, str]:
    """The access to AWS for a ledger entry: without secrets, and without settings that come from the environment."""
    return {name: value for name, value in asdict(access).items() if value}


def access_of(details: Mapping[str, Any]) -> Access:
    """The access to AWS that a ledger entry or a publication names."""
    known = {name: value for name, value in dict(details.get("access") or {}).items() if name in Access.__dataclass_fields__}
    return Access(**known)


def reclaim(kind: str, details: Mapping[str, Any], aws: Aws | None = None) -> bool:
    """Delete an AMI with its snapshots, a snapshot or an instance of a run; False for another kind.

    A resource that does not exist, or that another run has claimed since, is no error.
    """
    if kind not in KINDS:
        return False
    aws = aws or Aws(access_of(details))
    region, build = str(details["region"]), str(details.get("build", ""))
    for found in _found(aws, kind, region, str(details.get("id", "")), build):
        DELETE[kind](aws, region, found)
    if kind == "ami:image":  # also the snapshots of an AMI that failed or is deregistered already
        images.delete_snapshots(aws, region, [snapshot["SnapshotId"] for snapshot in _look(aws, "ami:snapshot", region, "", build)])
    return True


def claim(aws: Aws, region: str, run: str, *ids: str) -> None:
    """Tag resources as this run's."""
    with translated(f"tagging {', '.join(ids)} in {region}"):
        aws.client("ec2", region).create_tags(Resources=list(ids), Tags=[{"Key": BUILD_TAG, "Value": run}])


def _found(aws: Aws, kind: str, region: str, id: str, build: str) -> list[dict[str, Any]]:  # noqa: A002 - the ledger's word
    """The resources of a run, as AWS describes them: the one with this ID, or those with the run's tag. Asks again while there are none."""
    for number in range(LOOKS):
        if number:
            aws.clock.sleep(LOOK_AGAIN_SECONDS * number)
        if found := list(_look(aws, kind, region, id, build)):
            return found
    return []


def _look(aws: Aws, kind: str, region: str, id: str, build: str) -> Iterator[dict[str, Any]]:  # noqa: A002 - the ledger's word
    what: dict[str, Any] = {"Filters": [{"Name": f"tag:{BUILD_TAG}", "Values": [build]}]}
    if id:
        what["Filters"].append({"Name": ID_FILTERS[kind], "Values": [id]})
    elif kind == "ami:instance":  # a terminated instance stays visible for a while
        what["Filters"].append({"Name": "instance-state-name", "Values": NOT_TERMINATED})
    client = aws.client("ec2", region)
    with translated(f"looking for {id or f'the resources of {build}'} in {region}"):
        match kind:
            case "ami:image":
                yield from client.describe_images(Owners=["self"], **what)["Images"]
            case "ami:snapshot":
                yield from client.describe_snapshots(OwnerIds=["self"], **what)["Snapshots"]
            case _:
                for reservation in client.describe_instances(**what)["Reservations"]:
                    yield from reservation["Instances"]


ID_FILTERS = {"ami:image": "image-id", "ami:snapshot": "snapshot-id", "ami:instance": "instance-id"}


def _delete_snapshot(aws: Aws, region: str, found: Mapping[str, Any]) -> None:
    images.delete_snapshots(aws, region, [found["SnapshotId"]], patience=0.0)  # its AMI is deregistered already, or is not to be


def _terminate(aws: Aws, region: str, found: Mapping[str, Any]) -> None:
    with images.ignore_missing(), translated(f"terminating {found['InstanceId']} in {region}"):
        aws.client("ec2", region).terminate_instances(InstanceIds=[found["InstanceId"]])


DELETE = {"ami:image": images.delete, "ami:snapshot": _delete_snapshot, "ami:instance": _terminate}
