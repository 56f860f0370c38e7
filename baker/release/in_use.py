"""Find what uses an AMI in one region: instances, launch templates and auto-scaling groups, and other AMIs that share its snapshots.

The search covers instances that are not terminated, the default and the latest version of every launch template, the versions that
auto-scaling groups name (also in mixed instances policies), and the launch configurations of groups. It does not cover other versions of
launch templates (every release makes one, so no AMI would ever be unused), fleets, and other accounts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from baker.aws.errors import AwsError, translated
from baker.aws.session import Aws

BATCH = 200  # values of one filter
PARAMETERS = 10  # names of one GetParameters
ALIVE = ["pending", "running", "stopping", "stopped", "shutting-down"]
SSM = "resolve:ssm:"


class Region:
    """One region of the account, as the credentials of `aws` see it."""

    def __init__(self, aws: Aws, name: str) -> None:
        self.aws, self.name = aws, name

    def images(self, ids: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        """AMI -> EC2's description of it, for those of `ids` that exist, including deprecated and disabled AMIs."""
        found: dict[str, Mapping[str, Any]] = {}
        for batch in batches(sorted(set(ids)), BATCH):
            for page in self._pages("describe_images", IncludeDeprecated=True, IncludeDisabled=True, Filters=[_filter("image-id", batch)]):
                found |= {image["ImageId"]: image for image in page["Images"]}
        return found

    def uses(self, ids: Iterable[str]) -> dict[str, str]:
        """AMI -> a description of one thing that uses it. Unused AMIs are left out."""
        wanted = set(ids)
        found = dict(self._of_templates())
        found |= dict(self._of_groups())
        found |= dict(self._of_instances(sorted(wanted)))
        return {ami: why for ami, why in found.items() if ami in wanted}

    def last_launched(self, ami: str) -> str:
        """When an instance was last launched from the AMI (ISO 8601), or "" for never. EC2 reports this with a delay of a day."""
        with translated(f"the last launch of {ami} in {self.name}"):
            answer = self._ec2.describe_image_attribute(ImageId=ami, Attribute="lastLaunchedTime")
        return str(answer.get("LastLaunchedTime", {}).get("Value") or "")

    def shared_with(self, ami: str) -> int:
        """The number of accounts, organisations and organisational units that the AMI is shared with; "all" counts as one."""
        with translated(f"the launch permissions of {ami} in {self.name}"):
            return len(self._ec2.describe_image_attribute(ImageId=ami, Attribute="launchPermission")["LaunchPermissions"])

    def sharers(self, snapshots: Sequence[str]) -> dict[str, set[str]]:
        """Snapshot -> the AMIs of this account that contain it."""
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
        """(AMI, description) of the default and the latest version of every launch template."""
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
        """(AMI, description) of the launch template versions and launch configurations that auto-scaling groups name."""
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
        """(AMI, description) of the given versions of a launch template. A deleted version, which an old instance may still name, has
        no AMI and is left out."""
        try:
            yield from self._of_present(template, wanted)
        except AwsError as error:
            if not error.missing:
                raise
            if len(wanted) > 1:  # a single missing version makes AWS refuse the whole request
                for version, title in wanted.items():
                    yield from self._of_versions(template, {version: title})

    def _of_present(self, template: str, wanted: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        for page in self._pages("describe_launch_template_versions", LaunchTemplateId=template, Versions=sorted(wanted)):
            for version in page["LaunchTemplateVersions"]:
                ami = str(version.get("LaunchTemplateData", {}).get("ImageId", ""))
                title = wanted.get(str(version["VersionNumber"])) or next(iter(wanted.values()))
                yield (self._parameters({ami.removeprefix(SSM)}).get(ami.removeprefix(SSM), ami) if ami.startswith(SSM) else ami), title

    def _parameters(self, names: Iterable[str]) -> dict[str, str]:
        """The values of SSM parameters. Missing parameters are left out.

        The keys are all names that a launch template may use for a parameter: its path and its ARN, with the requested selector (a version
        number or a label) if there is one.
        """
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
    """The snapshots of an AMI, from its description by DescribeImages."""
    found = (device.get("Ebs", {}).get("SnapshotId") for device in image.get("BlockDeviceMappings", []))
    return [snapshot for snapshot in found if snapshot]


def batches(values: Sequence[str], size: int) -> Iterator[list[str]]:
    """Split `values` into lists of at most `size`."""
    for start in range(0, len(values), size):
        yield list(values[start : start + size])


def _named(group: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(launch template ID, version) of everything that a group names: its template, its mixed instances policy and its instances."""
    mixed = (group.get("MixedInstancesPolicy") or {}).get("LaunchTemplate", {})
    overrides = [one.get("LaunchTemplateSpecification") for one in mixed.get("Overrides", [])]
    instances = [one.get("LaunchTemplate") for one in group.get("Instances", [])]
    for one in [group.get("LaunchTemplate"), mixed.get("LaunchTemplateSpecification"), *overrides, *instances]:
        if one and one.get("LaunchTemplateId"):
            yield one["LaunchTemplateId"], str(one.get("Version") or "$Default")


def _filter(name: str, values: list[str]) -> dict[str, Any]:
    return {"Name": name, "Values": values}
