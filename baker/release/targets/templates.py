"""Launch templates: what a version says, and a new one with another AMI. https://docs.aws.amazon.com/AWSEC2/latest/APIReference/"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from baker.aws.errors import AwsError, translated
from baker.aws.session import Aws
from baker.core.errors import NotFoundError, UsageError
from baker.release.targets.base import Delivery, ReleaseError, ReleaseProgress

SSM = "resolve:ssm:"


@dataclass(frozen=True)
class Version:
    """One numbered version of a launch template. `data` is AWS's LaunchTemplateData."""

    template: str  # lt-...
    name: str
    number: int
    data: Mapping[str, Any]

    @property
    def ami(self) -> str:
        return str(self.data.get("ImageId", ""))

    @property
    def by_parameter(self) -> bool:
        """Whether its AMI is named by an SSM parameter."""
        return self.ami.startswith(SSM)


def version(aws: Aws, region: str, template: Mapping[str, str], wanted: str) -> Version:
    """The version `wanted` (a number, "$Latest", "$Default") of a template by {"LaunchTemplateId": ...} or {"LaunchTemplateName": ...}."""
    name = next(iter(template.values()))
    try:
        with translated(f"version {wanted} of launch template {name} in {region}"):
            answer = aws.client("ec2", region).describe_launch_template_versions(**template, Versions=[wanted])
    except AwsError as error:
        if error.missing:
            raise NotFoundError(error.message, hint="aws ec2 describe-launch-templates lists them") from error
        raise
    return _version(answer["LaunchTemplateVersions"][0])


def check_image(aws: Aws, region: str, delivery: Delivery, present: Version) -> None:
    """Whether the AMI can take the place of that of `present`: visible, available, of the same architecture, on its own snapshots."""
    images = _images(aws, region, [delivery.reference, present.ami])
    image = images.get(delivery.reference)
    if image is None:
        raise NotFoundError(
            f"{delivery.reference} ({delivery.image}) is not to be seen in {region} by account {aws.account}",
            hint="share it with that account (ami_users), or use --profile",
        )
    if image["State"] != "available":
        raise UsageError(f"{delivery.reference} ({delivery.image}) is {image['State']} in {region}")
    former = images.get(present.ami, image)
    if former["Architecture"] != image["Architecture"]:
        raise UsageError(f"{delivery.image} is for {image['Architecture']}, what {present.name} starts now is for {former['Architecture']}")
    for device in present.data.get("BlockDeviceMappings", []):
        snapshot = device.get("Ebs", {}).get("SnapshotId")
        if snapshot:
            raise UsageError(
                f"version {present.number} of launch template {present.name} puts snapshot {snapshot} on {device.get('DeviceName')}: "
                f"as the root disk they would run from that, not from {delivery.reference}; a data disk would come up empty, for AWS drops "
                "the snapshots that a version inherits through SourceVersion",
                hint="make a version of it without the SnapshotId first",
            )


def make_version(aws: Aws, region: str, present: Version, delivery: Delivery, journal: ReleaseProgress) -> int:
    """The number of the version that is as `present` but for the AMI: made now, or by an attempt before that nobody heard the end of."""
    known = journal.details.get("version")
    if known:
        return int(known)
    tried = bool(journal.details.get("making_version"))
    journal.note(making_version=True)
    number = (tried and _made(aws, region, present, delivery)) or _make(aws, region, present, delivery, journal)
    journal.note(version=number)
    journal.report.info(f"launch template {present.name}: version {number} with {delivery.reference}, else as version {present.number}")
    return number


def _make(aws: Aws, region: str, present: Version, delivery: Delivery, journal: ReleaseProgress) -> int:
    with translated(f"a new version of launch template {present.name} in {region}"):
        answer = aws.client("ec2", region).create_launch_template_version(
            LaunchTemplateId=present.template,
            SourceVersion=str(present.number),
            VersionDescription=_description(delivery),
            LaunchTemplateData={"ImageId": delivery.reference},
            ClientToken=delivery.token,
        )
    problems = [str(one.get("Message")) for one in answer.get("Warning", {}).get("Errors", [])]
    if problems:
        journal.report.warn(f"EC2 warns of the new version of launch template {present.name}: {'; '.join(problems)}")
    number = int(answer["LaunchTemplateVersion"]["VersionNumber"])
    if number == present.number:
        raise ReleaseError(f"EC2 made no new version of launch template {present.name}")
    return number


def _made(aws: Aws, region: str, present: Version, delivery: Delivery) -> int | None:
    """The version that an earlier attempt at this very release made."""
    with translated(f"the versions of launch template {present.name} in {region}"):
        pages = aws.client("ec2", region).get_paginator("describe_launch_template_versions").paginate(LaunchTemplateId=present.template)
        for page in pages:
            for one in page["LaunchTemplateVersions"]:
                if one.get("VersionDescription") == _description(delivery):
                    return int(one["VersionNumber"])
    return None


def _description(delivery: Delivery) -> str:
    return f"bake {delivery.title}: {delivery.image} {delivery.token}"[:255]


def _version(found: Mapping[str, Any]) -> Version:
    return Version(
        str(found["LaunchTemplateId"]),
        str(found.get("LaunchTemplateName", "")),
        int(found["VersionNumber"]),
        found.get("LaunchTemplateData", {}),
    )


def _images(aws: Aws, region: str, ids: list[str]) -> dict[str, Mapping[str, Any]]:
    """Those of these AMIs that can be seen. By filter: an id that is gone is then no error."""
    wanted = sorted({one for one in ids if one.startswith("ami-")})
    with translated(f"the images {', '.join(wanted)} in {region}"):
        answer = aws.client("ec2", region).describe_images(Filters=[{"Name": "image-id", "Values": wanted}])
    return {image["ImageId"]: image for image in answer["Images"]}
