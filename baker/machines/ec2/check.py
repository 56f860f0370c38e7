"""What can be known to go wrong before anything is made."""

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

# Instance families that share one quota: A, C, D, H, I, M, R, T, Z, and not DL, HPC, INF, TRN, MAC.
# docs.aws.amazon.com, EC2 User Guide, "Amazon EC2 service quotas"
STANDARD = re.compile(r"(a|c|d|h|i|im|is|m|r|t|z)[0-9]")
QUOTAS = {False: "L-1216C47A", True: "L-34B43A08"}  # Running On-Demand Standard instances; All Standard Spot Instance Requests: vCPUs


def check(scope: Scope, spec: Ec2Spec, ami: Ami, placement: Placement, warn: Any) -> None:
    """BuildError for what cannot come to a good end."""
    del placement  # finding it was the check
    _volume(spec, ami)
    _deprecation(scope, spec)
    _name_allowed(images.name_of(scope, spec))
    types = _instance_types(scope, spec)
    for name in spec.instance_type:
        _fits(name, types[name], ami)
    if short := _quota(scope, spec, types):
        warn(short)
    _names(scope, spec)


def _volume(spec: Ec2Spec, ami: Ami) -> None:
    if spec.volume_size and spec.volume_size < ami.virtual_size:
        raise BuildError(
            f"volume_size is {spec.volume_size >> 30} GiB, but the source's root volume has {ami.virtual_size >> 30} GiB",
            hint="a volume can grow but not shrink: leave volume_size out, or make it larger",
        )


def _deprecation(scope: Scope, spec: Ec2Spec) -> None:
    if spec.deprecate_at and datetime.fromisoformat(spec.deprecate_at) <= datetime.fromtimestamp(scope.aws.clock.date(), UTC):
        raise BuildError(
            f"deprecate_at is {spec.deprecate_at}, which is in the past", hint="a later builder.deprecate_at, or deprecate_after"
        )


def _name_allowed(name: str) -> None:
    if not AMI_NAME.fullmatch(name):
        raise BuildError(
            f"the AMI's name would be {name!r}, of {len(name)} characters: want 3 to 128 letters, digits, spaces and ( ) [ ] . / - ' @ _",
            hint="builder.ami_name",
        )


def _instance_types(scope: Scope, spec: Ec2Spec) -> dict[str, dict[str, Any]]:
    try:
        with translated(f"the instance types in {scope.region}"):
            answer = scope.client.describe_instance_types(InstanceTypes=list(spec.instance_type))
    except AwsError as error:
        if error.aws_code == "InvalidInstanceType":
            raise BuildError(f"{error.message}", hint="builder.instance_type: aws ec2 describe-instance-types lists them") from error
        raise
    found = {each["InstanceType"]: each for each in answer["InstanceTypes"]}
    missing = [name for name in spec.instance_type if name not in found]
    if missing:
        raise BuildError(f"there is no instance type {missing[0]} in {scope.region}", hint="builder.instance_type")
    return found


def _fits(name: str, found: dict[str, Any], ami: Ami) -> None:
    """The machine must be able to boot the image."""
    architectures = found.get("ProcessorInfo", {}).get("SupportedArchitectures", [])
    if ami.architecture and architectures and ami.architecture not in architectures:
        raise BuildError(
            f"{name} machines are {' or '.join(architectures)}, but the source {ami.id} is {ami.architecture}",
            hint="builder.instance_type, or the source, must be another one",
        )
    modes = found.get("SupportedBootModes", [])
    if ami.boot_mode in ("uefi", "legacy-bios") and modes and ami.boot_mode not in modes:
        raise BuildError(f"{name} machines boot by {' or '.join(modes)}, but the source {ami.id} by {ami.boot_mode}")


def _quota(scope: Scope, spec: Ec2Spec, types: dict[str, dict[str, Any]]) -> str:
    """Words, when the account's quota is less than one such machine has; "" when it suffices or is not known. Other machines that run
    are not counted: who counts them and starts then has no promise either."""
    standard = [types[name].get("VCpuInfo", {}).get("DefaultVCpus", 0) for name in spec.instance_type if STANDARD.match(name)]
    if not standard or len(standard) < len(spec.instance_type):
        return ""
    try:
        with translated("the vCPU quota"):
            client = scope.aws.client("service-quotas", scope.region)
            answer = client.get_service_quota(ServiceCode="ec2", QuotaCode=QUOTAS[spec.spot is not None])
    except (AwsError, HostError):
        return ""  # whoever may not ask is told by RunInstances
    allowed = float(answer["Quota"]["Value"])
    if allowed < min(standard) and spec.spot and spec.spot.fallback == "on_demand":
        return f"the account's quota of spot instances in {scope.region} is {allowed:g} vCPUs: it will be on demand"
    if allowed < min(standard):
        raise BuildError(
            f"the account's quota in {scope.region} is {allowed:g} vCPUs, and the smallest of these instances has {min(standard)}",
            hint=f"a smaller builder.instance_type, or ask AWS for more: quota {QUOTAS[spec.spot is not None]}",
        )
    return (
        f"the account's quota is {allowed:g} vCPUs: not every instance type of builder.instance_type fits"
        if allowed < max(standard)
        else ""
    )


def _names(scope: Scope, spec: Ec2Spec) -> None:
    """The AMI's name must be free wherever it goes: an AMI is never replaced."""
    name = images.name_of(scope, spec)
    wanted = {"Owners": ["self"], "Filters": filters(name=name), "IncludeDisabled": True}  # a disabled one keeps its name
    for region in dict.fromkeys([scope.region, *spec.ami_regions]):
        with translated(f"the images in {region}"):
            taken = scope.aws.client("ec2", region).describe_images(**wanted)["Images"]
        if taken:
            raise BuildError(
                f"there is an AMI {name} in {region} already: {taken[0]['ImageId']}",
                hint="a new version, or {build} in builder.ami_name; bake does not deregister an image for another",
            )
