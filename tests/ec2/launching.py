"""RunInstances, for whoever asks: the API, an auto-scaling group, an instance refresh."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

from moto.core.types import Base64EncodedString
from moto.ec2.models import ec2_backends
from moto.ec2.models.instance_types import INSTANCE_TYPES

from tests.ec2 import images
from tests.ec2.images import Mapping, StrictAmi
from tests.ec2.instances import StrictInstance
from tests.ec2.refusals import Refused
from tests.ec2.spot_actions import SpotRequest
from tests.ec2.world import ACCOUNT, world

TAGGED = ("instance", "volume", "network-interface", "spot-instances-request")
USER_DATA_LIMIT = 16384
Wanted = dict[str, Any]


def complete(region: str, wanted: Wanted) -> Wanted:
    """The request with what its launch template says beneath it. Refused for a template or a version that there is none of."""
    named = wanted.get("LaunchTemplate")
    if not named:
        return dict(wanted)
    template, version = template_version(region, named)
    data = {name: value for name, value in version.data.items() if value is not None}
    merged = {**data, **{name: value for name, value in wanted.items() if value not in (None, [], {})}}
    merged["TagSpecifications"] = [
        *(one for one in data.get("TagSpecifications", []) if one.get("ResourceType") != "launch-template"),
        *wanted.get("TagSpecifications", []),
    ]
    merged["_origin"] = {"aws:ec2launchtemplate:id": template.id, "aws:ec2launchtemplate:version": str(version.number)}
    return merged


def template_version(region: str, named: dict[str, Any]) -> tuple[Any, Any]:
    backend = ec2_backends[ACCOUNT][region]
    if "LaunchTemplateId" in named and "LaunchTemplateName" in named:
        raise Refused("InvalidParameterCombination", "LaunchTemplateId and LaunchTemplateName exclude each other")
    if "LaunchTemplateId" in named:
        template = backend.get_launch_template(named["LaunchTemplateId"])
    else:
        template = backend.get_launch_template_by_name(named.get("LaunchTemplateName"))
    return template, template.get_version(named.get("Version") or "$Default")


def launch(region: str, request: Wanted, count: int = 1, tags: dict[str, str] | None = None) -> Any:
    """The reservation. Refused for all that RunInstances refuses."""
    backend, wanted = ec2_backends[ACCOUNT][region], complete(region, request)
    image = launchable(region, wanted.get("ImageId"))
    given = images.tags_for(wanted.get("TagSpecifications"), TAGGED)
    kind = instance_type(wanted.get("InstanceType"), image)
    if wanted.get("KeyName") and wanted["KeyName"] not in backend.key_pairs:
        raise Refused("InvalidKeyPair.NotFound", f"The key pair '{wanted['KeyName']}' does not exist")
    market = wanted.get("InstanceMarketOptions") or {}
    spot = market.get("MarketType") == "spot"
    options = market.get("SpotOptions") or {}
    if options.get("SpotInstanceType") == "persistent" and options.get("InstanceInterruptionBehavior") not in ("stop", "hibernate"):
        raise Refused("InvalidParameterCombination", "a persistent request wants InstanceInterruptionBehavior stop or hibernate")
    if given["spot-instances-request"] and not spot:
        raise Refused("InvalidParameterCombination", "spot-instances-request can be tagged with spot instances only")
    subnet, groups, public = placed(backend, wanted)
    mappings = merged(image, wanted.get("BlockDeviceMappings") or [])
    missing_key = [
        ebs["KmsKeyId"] for ebs in (one["Ebs"] for one in mappings) if ebs.get("KmsKeyId") and not images.kms_key(region, ebs["KmsKeyId"])
    ]
    reservation = backend.run_instances(
        image.id, count, user_data(wanted.get("UserData")), [], security_group_ids=groups, instance_type=kind,
        is_instance_type_default=False,
        region_name=region, subnet_id=subnet.id, key_name=wanted.get("KeyName"), associate_public_ip=public, nics=[],
        tags={"instance": {**given["instance"], **(tags or {}), **wanted.get("_origin", {})}, "volume": given["volume"]},
        ebs_optimized=bool(wanted.get("EbsOptimized")), instance_market_options="spot" if spot else {}, launch_template={},
        instance_initiated_shutdown_behavior=wanted.get("InstanceInitiatedShutdownBehavior"), metadata_options=metadata(image, wanted),
        monitoring_state="enabled" if (wanted.get("Monitoring") or {}).get("Enabled") else "disabled",
        client_token=wanted.get("ClientToken", ""),
        block_device_mappings=[one | {"Ebs": {**one["Ebs"], "KmsKeyId": _arn(region, one["Ebs"])}} for one in mappings],
        disable_api_termination=bool(wanted.get("DisableApiTermination")), disable_api_stop=bool(wanted.get("DisableApiStop")),
        private_ip=wanted.get("PrivateIpAddress"),
    )  # fmt: skip
    image.last_launched_time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for instance in reservation.instances:
        _settle(instance, image, mappings, given, spot, wanted)
        if missing_key:
            world().later(
                lambda instance=instance: instance.lose(
                    "Client.InvalidKMSKey.InvalidState", "The KMS key provided is in an incorrect state"
                ),
                0,
            )
    return reservation


def _arn(region: str, ebs: dict[str, Any]) -> str | None:
    return images.kms_key(region, ebs["KmsKeyId"]) or ebs["KmsKeyId"] if ebs.get("KmsKeyId") else None


def _settle(instance: StrictInstance, image: StrictAmi, mappings: list[Mapping], given: Any, spot: bool, wanted: Wanted) -> None:
    """What moto leaves out of an instance."""
    backend, root = instance.ec2_backend, image.root
    for nic in instance.nics.values():
        nic.delete_on_termination = True
        nic.add_tags(given["network-interface"])
    for mapping in mappings:
        volume = backend.volumes[instance.block_device_mapping[mapping["DeviceName"]].volume_id]
        volume.iops, volume.throughput = mapping["Ebs"].get("Iops", volume.iops), mapping["Ebs"].get("Throughput")
    instance.ena_support, instance.boot_mode, instance.root_device_name = image.ena_support, image.boot_mode, image.root_device_name
    if spot:
        options = (wanted.get("InstanceMarketOptions") or {}).get("SpotOptions") or {}
        instance.spot_persistent = options.get("SpotInstanceType") == "persistent"
        instance.spot_instance_request_id = SpotRequest(backend, instance, given["spot-instances-request"]).id
    profile = wanted.get("IamInstanceProfile") or {}
    if profile:
        backend.associate_iam_instance_profile(
            instance_id=instance.id, iam_instance_profile_name=profile.get("Name"), iam_instance_profile_arn=profile.get("Arn")
        )
    instance.disk = root.disk() if root is not None else None
    if world().settings.machines:
        from tests.ec2 import machines

        instance.guest = machines.of(instance, image)
    instance.begin()


def launchable(region: str, name: str | None) -> StrictAmi:
    """The image; `resolve:ssm:NAME` is looked up as EC2 does."""
    if not name:
        raise Refused("MissingParameter", "The request must contain the parameter ImageId")
    if name.startswith("resolve:ssm:"):
        from moto.ssm.models import ssm_backends

        found = ssm_backends[ACCOUNT][region].get_parameter(name.removeprefix("resolve:ssm:"))
        if found is None:
            raise Refused("InvalidParameterValue", f"there is no parameter {name}")
        name = found.value
    image = images.find(region, name)
    if image.state != "available":
        raise Refused("InvalidAMIID.Unavailable", f"The image ID '{image.id}' is not available: it is {image.state}")
    return image


def instance_type(kind: str | None, image: StrictAmi) -> str:
    if kind not in INSTANCE_TYPES:
        raise Refused("InvalidParameterValue", f"Invalid value '{kind}' for InstanceType.")
    supported = INSTANCE_TYPES[kind]["ProcessorInfo"]["SupportedArchitectures"]
    if image.architecture not in supported:
        raise Refused(
            "InvalidParameterValue",
            f"The architecture '{','.join(supported)}' of the specified instance type does not match the architecture "
            f"'{image.architecture}' of the AMI",
        )
    return str(kind)


def placed(backend: Any, wanted: Wanted) -> tuple[Any, list[str], bool]:
    """(subnet, ids of the security groups, whether it gets a public address)."""
    cards = wanted.get("NetworkInterfaces") or []
    if cards and (wanted.get("SubnetId") or wanted.get("SecurityGroupIds")):
        raise Refused(
            "InvalidParameterCombination",
            "Network interfaces and an instance-level subnet ID or security groups may not be specified together",
        )
    if len(cards) > 1 or (cards and cards[0].get("DeviceIndex") != 0):
        raise Refused("EmulatorDoesNot", "give an instance several network interfaces")
    card = cards[0] if cards else {}
    subnet_id = card.get("SubnetId") or wanted.get("SubnetId")
    subnet = (
        backend.get_subnet(subnet_id) if subnet_id else _default_subnet(backend, (wanted.get("Placement") or {}).get("AvailabilityZone"))
    )
    groups = list(card.get("Groups") or wanted.get("SecurityGroupIds") or [])
    for group_id in groups:
        group = backend.get_security_group_from_id(group_id)
        if group is None:
            raise Refused("InvalidGroup.NotFound", f"The security group '{group_id}' does not exist")
        if group.vpc_id != subnet.vpc_id:
            raise Refused("InvalidParameter", f"Security group {group_id} and subnet {subnet.id} belong to different networks.")
    if not groups:
        groups = [group.id for group in backend.groups[subnet.vpc_id].values() if group.name == "default"]
    public = card.get("AssociatePublicIpAddress")
    return subnet, groups, bool(subnet.map_public_ip_on_launch if public is None else public)


def _default_subnet(backend: Any, zone: str | None) -> Any:
    found = backend.get_default_subnets() if backend.get_default_vpc() is not None else {}
    if not found:
        raise Refused("MissingInput", "No subnets found for the default VPC. Please specify a subnet.")
    if zone and zone not in found:
        raise Refused("InvalidParameterValue", f"Invalid availability zone: [{zone}]")
    return found[zone or sorted(found)[0]]


def merged(image: StrictAmi, changes: list[Mapping]) -> list[Mapping]:
    """The image's block devices with what the request changes. Refused for what cannot be."""
    found = {mapping["DeviceName"]: mapping for mapping in image.mappings}
    for change in changes:
        name, ebs = change["DeviceName"], change.get("Ebs") or {}
        if change.get("NoDevice") is not None:
            found.pop(name, None)
            continue
        if ebs.get("KmsKeyId") and not ebs.get("Encrypted"):
            raise Refused("InvalidParameterDependency", "KmsKeyId needs Encrypted")
        found[name] = {"DeviceName": name, "Ebs": {**found.get(name, {}).get("Ebs", {}), **ebs}}
    if image.root_device_name not in found:
        raise Refused("InvalidBlockDeviceMapping", f"the root device {image.root_device_name} may not be left out")
    for name, mapping in found.items():
        _checked(image, name, mapping["Ebs"])
    return list(found.values())


def _checked(image: StrictAmi, name: str, ebs: dict[str, Any]) -> None:
    snapshot = image.ec2_backend.snapshots.get(ebs.get("SnapshotId"))
    if "SnapshotId" in ebs and snapshot is None:
        raise Refused("InvalidSnapshot.NotFound", f"The snapshot '{ebs['SnapshotId']}' does not exist.")
    if snapshot is None and not ebs.get("VolumeSize"):
        raise Refused("MissingParameter", f"{name} needs a size or a snapshot")
    if snapshot is not None and int(ebs.get("VolumeSize") or snapshot.volume.size) < snapshot.volume.size:
        raise Refused(
            "InvalidBlockDeviceMapping",
            f"Volume of size {ebs['VolumeSize']}GB is smaller than snapshot '{snapshot.id}', expect size >= {snapshot.volume.size}GB",
        )
    if ebs.get("VolumeType", "gp2") not in ("gp2", "gp3", "io1", "io2", "st1", "sc1", "standard"):
        raise Refused("InvalidParameterValue", f"{ebs['VolumeType']} is no type of volume")


def metadata(image: StrictAmi, wanted: Wanted) -> dict[str, Any]:
    """MetadataOptions; an image with IMDS support v2.0 requires tokens when the request says nothing."""
    said = dict(wanted.get("MetadataOptions") or {})
    if image.imds_support == "v2.0":
        said = {"HttpTokens": "required", "HttpPutResponseHopLimit": 2, **said}
    return said


def user_data(value: Any) -> Base64EncodedString | None:
    if value in (None, "", b""):
        return None
    text = value.decode() if isinstance(value, bytes) else str(value)
    if len(base64.b64decode(text)) > USER_DATA_LIMIT:
        raise Refused("InvalidParameterValue", "User data is limited to 16384 bytes")
    return Base64EncodedString(text)
