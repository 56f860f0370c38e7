"""The actions of EC2 that make, change and remove AMIs, as refused and answered by AWS."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.models import ec2_backends
from moto.ec2.utils import generic_filter

from tests.ec2 import snapshots
from tests.ec2.images import Mapping, StrictAmi, default_key, find, kms_key, name_is_free, tags_for
from tests.ec2.paging import page
from tests.ec2.refusals import Refused
from tests.ec2.snapshots import StrictSnapshot
from tests.ec2.world import ACCOUNT, world

TAGGED = ("image", "snapshot")


def create_image(self: Any) -> ActionResult:
    instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
    tags = tags_for(self._get_param("TagSpecifications"), TAGGED)
    name_is_free(self.ec2_backend, self._get_param("Name"))
    if instance.state not in ("running", "stopped"):
        raise Refused("IncorrectInstanceState", f"The instance '{instance.id}' is not in the 'running' or 'stopped' state.")
    self.error_on_dryrun()
    instance.check_at_rest()
    changes = {mapping["DeviceName"]: mapping for mapping in self._get_param("BlockDeviceMappings") or []}
    mappings = [
        _snapshot_of(self.ec2_backend, instance, device, changes.get(device, {}), tags["snapshot"])
        for device in instance.block_device_mapping
        if changes.get(device, {}).get("NoDevice") is None
    ]
    source = ec2_backends[ACCOUNT][self.region].amis.get(instance.image_id)
    made = StrictAmi(
        self.ec2_backend, self._get_param("Name"), self._get_param("Description"), mappings, architecture=instance.architecture,
        root_device_name=instance.root_device_name, source_instance_id=instance.id, boot_mode=source and source.boot_mode,
        imds_support=source and source.imds_support, source_image_id=instance.image_id, source_image_region=self.region,
    )  # fmt: skip
    made.add_tags(tags["image"])
    made.end_later()
    return ActionResult({"ImageId": made.id})


def _snapshot_of(backend: Any, instance: Any, device: str, change: Mapping, tags: dict[str, str]) -> Mapping:
    attached = instance.block_device_mapping[device]
    volume, wanted = backend.volumes[attached.volume_id], change.get("Ebs", {})
    made = StrictSnapshot(
        backend,
        volume.size,
        f"Created by CreateImage({instance.id})",
        volume_id=volume.id,
        encrypted=volume.encrypted,
        kms_key_id=volume.kms_key_id,
    )
    made.add_tags(tags)
    made.take(instance, device)
    return {
        "DeviceName": device,
        "Ebs": {
            "SnapshotId": made.id, "VolumeSize": wanted.get("VolumeSize", volume.size), "Encrypted": volume.encrypted,
            "DeleteOnTermination": wanted.get("DeleteOnTermination", attached.delete_on_termination),
            "VolumeType": wanted.get("VolumeType", volume.volume_type),
        },
    }  # fmt: skip


def register_image(self: Any) -> ActionResult:
    tags = tags_for(self._get_param("TagSpecifications"), ("image",))
    name_is_free(self.ec2_backend, self._get_param("Name"))
    root, mappings = self._get_param("RootDeviceName"), self._get_param("BlockDeviceMappings") or []
    if not root or root not in [mapping["DeviceName"] for mapping in mappings]:
        raise Refused("InvalidBlockDeviceMapping", f"there is no mapping for the root device {root}")
    mode, virtualization = self._get_param("BootMode"), self._get_param("VirtualizationType", "paravirtual")
    if virtualization != "hvm":
        raise Refused("InvalidParameterCombination", "what bake bakes boots as 'hvm' only (EC2's default is 'paravirtual')")
    if mode not in (None, "legacy-bios", "uefi", "uefi-preferred"):
        raise Refused("InvalidParameterValue", f"BootMode {mode}")
    ready = [_registered(self, mapping) for mapping in mappings]
    self.error_on_dryrun()
    made = StrictAmi(
        self.ec2_backend, self._get_param("Name"), self._get_param("Description"), ready, architecture=self._get_param("Architecture",
        "i386"),
        root_device_name=root, boot_mode=mode, ena_support=bool(self._get_param("EnaSupport")), imds_support=self._get_param("ImdsSupport"),
        sriov=self._get_param("SriovNetSupport"),
    )  # fmt: skip
    made.tpm_support = self._get_param("TpmSupport")
    made.add_tags(tags["image"])
    made.end_later()
    return ActionResult({"ImageId": made.id})


def _registered(self: Any, mapping: Mapping) -> Mapping:
    ebs = dict(mapping.get("Ebs") or {})
    if "SnapshotId" in ebs:
        snapshot = snapshots.find(self.region, ebs["SnapshotId"])
        if snapshot.status != "completed":
            raise Refused("IncorrectState", f"The snapshot {snapshot.id} is {snapshot.status}, not completed")
        if ebs.setdefault("VolumeSize", snapshot.volume.size) < snapshot.volume.size:
            raise Refused("InvalidBlockDeviceMapping", f"Volume of size {ebs['VolumeSize']}GB is smaller than snapshot '{snapshot.id}'")
        if "Encrypted" in ebs:
            raise Refused("InvalidParameterDependency", "Encrypted may not be given for a snapshot in RegisterImage")
        ebs["Encrypted"] = snapshot.encrypted
    ebs.setdefault("DeleteOnTermination", True)
    ebs.setdefault("VolumeType", "gp2")
    return {"DeviceName": mapping["DeviceName"], "Ebs": ebs}


def copy_image(self: Any) -> ActionResult:
    source_region, key = self._get_param("SourceRegion"), self._get_param("KmsKeyId")
    source = find(source_region, self._get_param("SourceImageId"))
    tags = tags_for(self._get_param("TagSpecifications"), TAGGED)
    name_is_free(self.ec2_backend, self._get_param("Name"))
    if source.state != "available":
        raise Refused("InvalidAMIID.Unavailable", f"The image {source.id} is {source.state}")
    if key and not self._get_param("Encrypted"):
        raise Refused("InvalidParameterDependency", "KmsKeyId needs Encrypted")
    self.error_on_dryrun()
    encrypted = bool(self._get_param("Encrypted")) or any(snapshot.encrypted for snapshot in source.snapshots)
    arn = (kms_key(self.region, key) if key else default_key(self.region)) if encrypted else None
    copied = [_copied(self.ec2_backend, mapping, encrypted, arn, source, tags["snapshot"]) for mapping in source.mappings]
    made = StrictAmi(
        self.ec2_backend, self._get_param("Name"), self._get_param("Description"), copied, architecture=source.architecture,
        root_device_name=source.root_device_name, boot_mode=source.boot_mode, ena_support=source.ena_support,
        imds_support=source.imds_support,
        source_image_id=source.id, source_image_region=source_region,
    )  # fmt: skip
    made.add_tags(tags["image"])
    if self._get_param("CopyImageTags") and source.owner_id == ACCOUNT:
        made.add_tags({tag["key"]: tag["value"] for tag in source.get_tags() if not tag["key"].startswith("aws:")})
    if encrypted and arn is None:
        world().later(lambda: made.fail("Client.InvalidKMSKey.InvalidState", f"The KMS key {key} is not accessible in {self.region}"))
    made.end_later()
    return ActionResult({"ImageId": made.id})


def _copied(backend: Any, mapping: Mapping, encrypted: bool, key: str | None, source: StrictAmi, tags: dict[str, str]) -> Mapping:
    before = source.ec2_backend.snapshots[mapping["Ebs"]["SnapshotId"]]
    made = snapshots.copy_of(before, backend, f"Copied for DestinationAmi from SourceAmi {source.id}", encrypted=encrypted, kms_key_id=key)
    made.add_tags(tags)
    made.end_later()
    return {"DeviceName": mapping["DeviceName"], "Ebs": mapping["Ebs"] | {"SnapshotId": made.id, "Encrypted": encrypted}}


def deregister_image(self: Any) -> ActionResult:
    image = find(self.region, self._get_param("ImageId"), own=True)
    if image.deregistration_protection != "disabled":
        raise Refused("OperationNotPermitted", f"The image {image.id} is protected from deregistration: {image.deregistration_protection}")
    self.error_on_dryrun()
    parts = image.snapshots
    del self.ec2_backend.amis[image.id]
    self.ec2_backend.deleted_amis.append(image.id)
    results = []
    for snapshot in parts if self._get_param("DeleteAssociatedSnapshots") else []:
        used = users(self.ec2_backend, snapshot.id)
        results.append({"SnapshotId": snapshot.id, "ReturnCode": "skipped" if used else "success"})
        if not used:
            self.ec2_backend.snapshots.pop(snapshot.id).discard()
    return ActionResult({"Return": True, "DeleteSnapshotResults": results})


def users(backend: Any, snapshot_id: str) -> list[str]:
    """The images that a snapshot is part of."""
    return [image.id for image in backend.amis.values() if snapshot_id in [snapshot.id for snapshot in image.snapshots]]


def describe_images(self: Any) -> ActionResult:
    self.error_on_dryrun()
    ids, owners = self._get_param("ImageIds") or [], self._get_param("Owners") or []
    found = [find(self.region, name) for name in ids] if ids else list(self.ec2_backend.amis.values())
    if owners:
        wanted = {ACCOUNT if owner == "self" else owner for owner in owners}
        found = [image for image in found if image.owner_id in wanted or image.owner_alias in wanted]
    if users_ := self._get_param("ExecutableUsers"):
        allowed = {ACCOUNT if user == "self" else user for user in users_}
        found = [
            image
            for image in found
            if any(permission.get("UserId", permission.get("Group")) in allowed for permission in image.launch_permissions)
        ]
    if not self._get_param("IncludeDisabled"):
        found = [image for image in found if image.state != "disabled"]
    if not self._get_param("IncludeDeprecated"):
        found = [image for image in found if image.owner_id == ACCOUNT or ids or not _deprecated(image)]
    found, token = page(generic_filter(self._filters_from_querystring(), found), self)
    return ActionResult({"Images": found, "NextToken": token})


def _deprecated(image: StrictAmi) -> bool:
    return image.deprecation_time is not None and image.deprecation_time < datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
