"""Launch templates: read a version, and make a new one with another AMI. https://docs.aws.amazon.com/AWSEC2/latest/APIReference/"""

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
        """Whether the version names its AMI through an SSM parameter."""
        return self.ami.startswith(SSM)


def version(aws: Aws, region: str, template: Mapping[str, str], wanted: str) -> Version:
    """The version `wanted` (a number, "$Latest" or "$Default") of a template.

    `template` is {"LaunchTemplateId": ...} or {"LaunchTemplateName": ...}. Raises NotFoundError.
    """
    name = next(iter(template.values()))
    try:
        with translated(f"version {wanted} of launch template {name} in {region}"):
            answer = aws.client("ec2", region).describe_launch_template_versions(**template, Versions=[wanted])
    except AwsError as error:
        if error.missing:
            raise NotFoundError(
                error.message, hint="aws ec2 describe-launch-templates lists them", code="release.template-missing"
            ) from error
        raise
    return _version(answer["LaunchTemplateVersions"][0])


def check_image(aws: Aws, region: str, delivery: Delivery, present: Version) -> None:
    """Raise an error unless the AMI can replace the AMI of the version `present`.

    It must be visible to the account (NotFoundError), available and of the same architecture, and the version must not name snapshots
    itself (UsageError).
    """
    images = _images(aws, region, [delivery.reference, present.ami])
    image = images.get(delivery.reference)
    if image is None:
        raise NotFoundError(
            f"account {aws.account} cannot see {delivery.reference} ({delivery.image}) in {region}",
            hint="share it with that account (ami_users), or use --profile",
            code="release.ami-not-visible",
        )
    if image["State"] != "available":
        raise UsageError(
            f"{delivery.reference} ({delivery.image}) is {image['State']} in {region}",
            hint="only an AMI in the state available can be released",
            code="aws.ami-not-available",
        )
    former = images.get(present.ami, image)
    if former["Architecture"] != image["Architecture"]:
        raise UsageError(
            f"{delivery.image} is for {image['Architecture']}, but {present.name} now starts machines for {former['Architecture']}",
            hint="release it to a target of its own architecture",
            code="release.architecture",
        )
    for device in present.data.get("BlockDeviceMappings", []):
        snapshot = device.get("Ebs", {}).get("SnapshotId")
        if snapshot:
            raise UsageError(
                f"version {present.number} of launch template {present.name} puts snapshot {snapshot} on {device.get('DeviceName')}: "
                f"if that is the root disk, instances would run from the snapshot and not from {delivery.reference}; if it is a data disk, "
                "it would be empty, because AWS drops the snapshots that a version inherits through SourceVersion",
                hint="make a version of the launch template without the SnapshotId first",
                code="release.template-snapshot",
            )


def make_version(aws: Aws, region: str, present: Version, delivery: Delivery, journal: ReleaseProgress) -> int:
    """The number of a new version that equals `present` except for the AMI.

    An earlier attempt at this release whose answer was lost may have made it already; that version is then found and used.
    """
    known = journal.details.get("version")
    if known:
        return int(known)
    tried = bool(journal.details.get("making_version"))
    journal.note(making_version=True)
    number = (tried and _made(aws, region, present, delivery)) or _make(aws, region, present, delivery, journal)
    journal.note(version=number)
    journal.report.info(
        f"launch template {present.name}: version {number} with {delivery.reference}, otherwise like version {present.number}"
    )
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
        journal.report.warn(f"EC2 warns about the new version of launch template {present.name}: {'; '.join(problems)}")
    number = int(answer["LaunchTemplateVersion"]["VersionNumber"])
    if number == present.number:
        raise ReleaseError(
            f"EC2 made no new version of launch template {present.name}",
            hint=f"look at version {present.number}: it may have this AMI already",
            code="release.no-new-version",
        )
    return number


def _made(aws: Aws, region: str, present: Version, delivery: Delivery) -> int | None:
    """The version that an earlier attempt at this release made, found by its description; None when there is none."""
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
    """AMI -> EC2's description of it, for those of `ids` that the account can see. A filter is used so that a missing ID is no error."""
    wanted = sorted({one for one in ids if one.startswith("ami-")})
    with translated(f"the images {', '.join(wanted)} in {region}"):
        answer = aws.client("ec2", region).describe_images(Filters=[{"Name": "image-id", "Values": wanted}])
    return {image["ImageId"]: image for image in answer["Images"]}
