"""What still uses an AMI in one region: instances, launch templates, auto-scaling groups; and other AMIs that share its snapshots.

Looked at: instances that are not terminated; of every launch template the default and the latest version, and the versions that
auto-scaling groups name (in mixed instances policies too); the launch configurations of groups. Not looked at: other versions of
templates (every release makes one, so that nothing would ever go), fleets, other accounts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from baker.aws.errors import AwsError, translated
from baker.aws.session import Aws

BATCH = 200  # values of one filter
PARAMETERS = 10  # of one GetParameters
ALIVE = ["pending", "running", "stopping", "stopped", "shutting-down"]
SSM = "resolve:ssm:"


class Region:
    """One region of the account, looked at through the credentials of `aws`."""

    def __init__(self, aws: Aws, name: str) -> None:
        self.aws, self.name = aws, name

    def images(self, ids: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        """What EC2 says of those of these AMIs that are there, deprecated and disabled ones too."""
        found: dict[str, Mapping[str, Any]] = {}
        for batch in batches(sorted(set(ids)), BATCH):
            for page in self._pages("describe_images", IncludeDeprecated=True, IncludeDisabled=True, Filters=[_filter("image-id", batch)]):
                found |= {image["ImageId"]: image for image in page["Images"]}
        return found

    def uses(self, ids: Iterable[str]) -> dict[str, str]:
        """AMI -> what uses it, in words: one reason for each."""
        wanted = set(ids)
        found = dict(self._of_templates())
        found |= dict(self._of_groups())
        found |= dict(self._of_instances(sorted(wanted)))
        return {ami: why for ami, why in found.items() if ami in wanted}

    def last_launched(self, ami: str) -> str:
        """When an instance was last started from it, as EC2 knows with a day's delay (ISO 8601); "" for never."""
        with translated(f"the last launch of {ami} in {self.name}"):
            answer = self._ec2.describe_image_attribute(ImageId=ami, Attribute="lastLaunchedTime")
        return str(answer.get("LastLaunchedTime", {}).get("Value") or "")

    def shared_with(self, ami: str) -> int:
        """How many accounts, organisations and units it is shared with; "all" counts as one."""
        with translated(f"the launch permissions of {ami} in {self.name}"):
            return len(self._ec2.describe_image_attribute(ImageId=ami, Attribute="launchPermission")["LaunchPermissions"])

    def sharers(self, snapshots: Sequence[str]) -> dict[str, set[str]]:
        """Snapshot -> the AMIs of this account that are made of it."""
        found: dict[str, set[str]] = {}
        for batch in batches(sorted(set(snapshots)), BATCH):
            wanted = [_filter("block-device-mapping.snapshot-id", batch)]
            for page in self._pages("describe_images", Owners=["self"], IncludeDeprecated=True, IncludeDisabled=True, Filters=wanted):
                for image in page["Images"]:
                    for snapshot in snapshots_of(image):
                        found.setdefault(snapshot, set()).add(image["ImageId"])
        return found

    def _of_instances(self, ids: list[str]) -> Iterator[tuple[str, str]]:
        for batch in batches(ids, BATCH):
            for page in self._pages("describe_instances", Filters=[_filter("image-id", batch), _filter("instance-state-name", ALIVE)]):
                for instance in (one for reservation in page["Reservations"] for one in reservation["Instances"]):
                    yield instance["ImageId"], f"instance {instance['InstanceId']} is {instance['State']['Name']}"

    def _of_templates(self) -> Iterator[tuple[str, str]]:
        """Of the default and the latest version of every launch template."""
        found = []
        for page in self._pages("describe_launch_template_versions", Versions=["$Default", "$Latest"]):
            for version in page["LaunchTemplateVersions"]:
                title = (
                    f"launch template {version.get('LaunchTemplateName', version['LaunchTemplateId'])}, version {version['VersionNumber']}"
                )
                found.append((str(version.get("LaunchTemplateData", {}).get("ImageId", "")), title))
        parameters = self._parameters({ami.removeprefix(SSM) for ami, _ in found if ami.startswith(SSM)})
        for ami, title in found:
            yield parameters.get(ami.removeprefix(SSM), ami), title

    def _of_groups(self) -> Iterator[tuple[str, str]]:
        """Of the template versions and launch configurations that auto-scaling groups name."""
        versions: dict[str, dict[str, str]] = {}
        configurations: dict[str, str] = {}
        for page in self._pages("describe_auto_scaling_groups", service="autoscaling"):
            for group in page["AutoScalingGroups"]:
                title = f"auto-scaling group {group['AutoScalingGroupName']}"
                for template, version in _named(group):
                    versions.setdefault(template, {})[version] = title
                if group.get("LaunchConfigurationName"):
                    configurations[group["LaunchConfigurationName"]] = title
        for template, wanted in versions.items():
            yield from self._of_versions(template, wanted)
        if configurations:
            for page in self._pages(
                "describe_launch_configurations", service="autoscaling", LaunchConfigurationNames=sorted(configurations)
            ):
                for one in page["LaunchConfigurations"]:
                    yield one["ImageId"], configurations[one["LaunchConfigurationName"]]

    def _of_versions(self, template: str, wanted: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """Of these versions of a template -> who names them. One that is deleted, which an old instance may still name, has no AMI."""
        try:
            yield from self._of_present(template, wanted)
        except AwsError as error:
            if not error.missing:
                raise
            if len(wanted) > 1:  # AWS refuses all for one
                for version, title in wanted.items():
                    yield from self._of_versions(template, {version: title})

    def _of_present(self, template: str, wanted: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        for page in self._pages("describe_launch_template_versions", LaunchTemplateId=template, Versions=sorted(wanted)):
            for version in page["LaunchTemplateVersions"]:
                ami = str(version.get("LaunchTemplateData", {}).get("ImageId", ""))
                title = wanted.get(str(version["VersionNumber"])) or next(iter(wanted.values()))
                yield (self._parameters({ami.removeprefix(SSM)}).get(ami.removeprefix(SSM), ami) if ami.startswith(SSM) else ami), title

    def _parameters(self, names: Iterable[str]) -> dict[str, str]:
        """The values of SSM parameters by every name that a template may use: the path or the ARN, with the selector (a version's number
        or a label) that was asked for. Those that are not there are left out."""
        found: dict[str, str] = {}
        for batch in batches(sorted(names), PARAMETERS):
            with translated(f"SSM parameters in {self.name}"):
                answer = self.aws.client("ssm", self.name).get_parameters(Names=batch)
            for one in answer["Parameters"]:
                selector = one.get("Selector", "").lstrip(":")
                for name in (one["Name"], one.get("ARN", "")):
                    found[f"{name}:{selector}" if selector else name] = one["Value"]
        return found

    @property
    def _ec2(self) -> Any:
        return self.aws.client("ec2", self.name)

    def _pages(self, operation: str, *, service: str = "ec2", **asked: Any) -> Iterator[Mapping[str, Any]]:
        with translated(f"{operation.replace('_', ' ')} in {self.name}"):
            yield from self.aws.client(service, self.name).get_paginator(operation).paginate(**asked)


def snapshots_of(image: Mapping[str, Any]) -> list[str]:
    """The snapshots that an AMI is made of, as DescribeImages says it."""
    found = (device.get("Ebs", {}).get("SnapshotId") for device in image.get("BlockDeviceMappings", []))
    return [snapshot for snapshot in found if snapshot]


def batches(values: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(values), size):
        yield list(values[start : start + size])


def _named(group: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The launch templates and versions that a group names."""
    mixed = (group.get("MixedInstancesPolicy") or {}).get("LaunchTemplate", {})
    overrides = [one.get("LaunchTemplateSpecification") for one in mixed.get("Overrides", [])]
    instances = [one.get("LaunchTemplate") for one in group.get("Instances", [])]
    for one in [group.get("LaunchTemplate"), mixed.get("LaunchTemplateSpecification"), *overrides, *instances]:
        if one and one.get("LaunchTemplateId"):
            yield one["LaunchTemplateId"], str(one.get("Version") or "$Default")


def _filter(name: str, values: list[str]) -> dict[str, Any]:
    return {"Name": name, "Values": values}
