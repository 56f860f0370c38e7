"""Checks before a build creates anything in AWS."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from baker.aws.errors import AwsError, translated
from baker.core.errors import BuildError, HostError
from baker.core.model import Ami
from baker.machines.ec2 import images
from baker.machines.ec2.network import Placement
from baker.machines.ec2.scope import Scope, filters
from baker.template.ec2 import AMI_NAME, Ec2Spec

# The instance families that share one quota: A, C, D, H, I, M, R, T, Z, but not DL, HPC, INF, TRN, MAC.
# Source: EC2 User Guide, "Amazon EC2 service quotas".
STANDARD = re.compile(r"(a|c|d|h|i|im|is|m|r|t|z)[0-9]")
# By whether it is spot: "Running On-Demand Standard instances" and "All Standard Spot Instance Requests", in vCPUs.
QUOTAS = {False: "L-1216C47A", True: "L-34B43A08"}
INSTANCE_TYPE_HINT = "set builder.instance_type: aws ec2 describe-instance-types lists the types"


def check(scope: Scope, spec: Ec2Spec, ami: Ami, placement: Placement, warn: Any) -> None:
    """Raise BuildError for a configuration with which the build would fail. `warn` is called with the text of each warning."""
    del placement  # finding it was the check
    _volume(spec, ami)
    _deprecation(scope, spec)
    _name_allowed(images.name_of(scope, spec))
    types = _instance_types(scope, spec)
    for name in spec.instance_type:
        _fits(name, types[name], ami)
    if warning := _quota(scope, spec, types):
        warn(warning)
    _name_free(scope, spec)


def _volume(spec: Ec2Spec, ami: Ami) -> None:
    if spec.volume_size and spec.volume_size < ami.virtual_size:
        raise BuildError(
            f"volume_size is {spec.volume_size >> 30} GiB, but the source's root volume has {ami.virtual_size >> 30} GiB",
            hint="a volume can grow but not shrink: leave volume_size out, or make it larger",
            code="ec2.volume-too-small",
        )


def _deprecation(scope: Scope, spec: Ec2Spec) -> None:
    if spec.deprecate_at and datetime.fromisoformat(spec.deprecate_at) <= datetime.fromtimestamp(scope.aws.clock.date(), UTC):
        raise BuildError(
            f"deprecate_at is {spec.deprecate_at}, which is in the past",
            hint="use a later builder.deprecate_at, or deprecate_after",
            code="ec2.deprecation-in-past",
        )


def _name_allowed(name: str) -> None:
    if not AMI_NAME.fullmatch(name):
        raise BuildError(
            f"the AMI's name {name!r} has {len(name)} characters: AWS allows 3 to 128 letters, digits, spaces and ( ) [ ] . / - ' @ _",
            hint="set builder.ami_name",
            code="aws.ami-name",
        )


def _instance_types(scope: Scope, spec: Ec2Spec) -> dict[str, dict[str, Any]]:
    try:
        with translated(f"the instance types in {scope.region}"):
            answer = scope.client.describe_instance_types(InstanceTypes=list(spec.instance_type))
    except AwsError as error:
        if error.aws_code == "InvalidInstanceType":
            raise BuildError(error.message, hint=INSTANCE_TYPE_HINT, code="ec2.unknown-instance-type") from error
        raise
    found = {each["InstanceType"]: each for each in answer["InstanceTypes"]}
    missing = [name for name in spec.instance_type if name not in found]
    if missing:
        message = f"there is no instance type {missing[0]} in {scope.region}"
        raise BuildError(message, hint=INSTANCE_TYPE_HINT, code="ec2.unknown-instance-type")
    return found


def _fits(name: str, found: dict[str, Any], ami: Ami) -> None:
    """Raise BuildError unless machines of the type `name` can boot the AMI."""
    architectures = found.get("ProcessorInfo", {}).get("SupportedArchitectures", [])
    if ami.architecture and architectures and ami.architecture not in architectures:
        raise BuildError(
            f"{name} machines are {' or '.join(architectures)}, but the source {ami.id} is {ami.architecture}",
            hint="use another builder.instance_type, or another source",
            code="ec2.architecture",
        )
    modes = found.get("SupportedBootModes", [])
    if ami.boot_mode in ("uefi", "legacy-bios") and modes and ami.boot_mode not in modes:
        raise BuildError(
            f"{name} machines boot with {' or '.join(modes)}, but the source {ami.id} with {ami.boot_mode}",
            hint="use another builder.instance_type, or another source",
            code="ec2.boot-mode",
        )


def _quota(scope: Scope, spec: Ec2Spec, types: dict[str, dict[str, Any]]) -> str:
    """Compare the account's vCPU quota with one machine of each type. Returns a warning, or "" when the quota suffices or is unknown.

    BuildError when no type fits. Machines that are running are not counted: that could change before this one starts.
    """
    standard = [types[name].get("VCpuInfo", {}).get("DefaultVCpus", 0) for name in spec.instance_type if STANDARD.match(name)]
    if not standard or len(standard) < len(spec.instance_type):
        return ""
    try:
        with translated("the vCPU quota"):
            client = scope.aws.client("service-quotas", scope.region)
            answer = client.get_service_quota(ServiceCode="ec2", QuotaCode=QUOTAS[spec.spot is not None])
    except (AwsError, HostError):
        return ""  # without the right to read quotas, RunInstances reports what is wrong
    allowed = float(answer["Quota"]["Value"])
    if allowed < min(standard) and spec.spot and spec.spot.fallback == "on_demand":
        return f"the account's quota of spot instances in {scope.region} is {allowed:g} vCPUs: the instance will be on demand"
    if allowed < min(standard):
        raise BuildError(
            f"the account's quota in {scope.region} is {allowed:g} vCPUs, and the smallest of these instances has {min(standard)}",
            hint=f"use a smaller builder.instance_type, or request an increase of the quota {QUOTAS[spec.spot is not None]} from AWS",
            code="ec2.quota",
        )
    return (
        f"the account's quota is {allowed:g} vCPUs: not every instance type of builder.instance_type fits"
        if allowed < max(standard)
        else ""
    )


def _name_free(scope: Scope, spec: Ec2Spec) -> None:
    """Raise BuildError unless the AMI's name is free in all its regions: bake never replaces an AMI."""
    name = images.name_of(scope, spec)
    search = {"Owners": ["self"], "Filters": filters(name=name), "IncludeDisabled": True}  # a disabled AMI keeps its name
    for region in dict.fromkeys([scope.region, *spec.ami_regions]):
        with translated(f"the images in {region}"):
            taken = scope.aws.client("ec2", region).describe_images(**search)["Images"]
        if taken:
            raise BuildError(
                f"there is an AMI {name} in {region} already: {taken[0]['ImageId']}",
                hint="use a new version, or {build} in builder.ami_name; bake does not replace an AMI",
                code="ec2.ami-name-taken",
            )
