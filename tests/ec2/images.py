"""AMIs that take time, can fail, and stand for the disks of their snapshots."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from typing import Any

from moto.ec2.models import ec2_backends
from moto.ec2.models.amis import Ami

from tests.ec2.refusals import Refused
from tests.ec2.snapshots import StrictSnapshot
from tests.ec2.world import ACCOUNT, world

NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")
Mapping = dict[str, Any]


class StrictAmi(Ami):  # type: ignore[misc]
    """`state`: "pending" -> "available" | "failed"; "disabled". `block_device_mappings` are real ones."""

    __module__ = "moto.ec2.models"

    def __init__(self, backend: Any, name: str, description: str, mappings: list[Mapping], **known: Any) -> None:
        self.ec2_backend, self.id = backend, f"ami-0{secrets.token_hex(8)}"
        self.name, self.description, self.mappings = name, description or "", mappings
        self.owner_id = known.pop("owner_id", ACCOUNT)
        self.owner_alias = self.image_owner_alias = known.pop("owner_alias", None)
        self.image_type, self.image_location = "machine", f"{self.owner_id}/{name}"
        self.virtualization_type, self.architecture = "hvm", known.pop("architecture", "x86_64")
        self.kernel_id = self.platform = self.ramdisk_id = self.tpm_support = None
        self.platform_details, self.usage_operation = "Linux/UNIX", "RunInstances"
        self.hypervisor, self.root_device_name, self.root_device_type = "xen", known.pop("root_device_name", "/dev/xvda"), "ebs"
        self.sriov = self.sriov_net_support = known.pop("sriov", "simple")
        self.ena_support = known.pop("ena_support", True)
        self.boot_mode, self.imds_support = known.pop("boot_mode", None), known.pop("imds_support", None)
        self.creation_date = known.pop("creation_date", None) or datetime.now(UTC).replace(tzinfo=None)
        self.product_codes: set[str] = set()
        self.instance_id = known.pop("source_instance_id", None)
        self.source_image_id, self.source_image_region = known.pop("source_image_id", None), known.pop("source_image_region", None)
        self.state, self.state_reason = "pending", None
        self.deprecation_time: str | None = None
        self.deregistration_protection = "disabled"
        self.last_launched_time: str | None = None
        self.launch_permissions: list[dict[str, str]] = [{"Group": "all"}] if known.pop("public", False) else []
        if known:
            raise TypeError(f"unknown: {known}")
        backend.amis[self.id] = self

    @property
    def block_device_mappings(self) -> list[Mapping]:
        return self.mappings

    @property
    def public(self) -> bool:
        return self.is_public

    @property
    def snapshots(self) -> list[StrictSnapshot]:
        ids = [mapping["Ebs"]["SnapshotId"] for mapping in self.mappings if "SnapshotId" in mapping.get("Ebs", {})]
        return [self.ec2_backend.snapshots[name] for name in ids if name in self.ec2_backend.snapshots]

    @property
    def root(self) -> StrictSnapshot | None:
        """The snapshot of the root device."""
        for mapping in self.mappings:
            if mapping["DeviceName"] == self.root_device_name:
                found: StrictSnapshot | None = self.ec2_backend.snapshots.get(mapping["Ebs"]["SnapshotId"])
                return found
        return None

    def finish(self) -> None:
        """Available when all snapshots are there, failed when one is in error."""
        if self.state != "pending":
            return
        states = {snapshot.status for snapshot in self.snapshots}
        if "error" in states:
            self.fail("Client.InternalError", "a snapshot is in error")
        elif states <= {"completed"}:
            self.state = "available"
        else:
            world().later(self.finish, 0.01)

    def fail(self, code: str = "Client.InternalError", message: str = "Client error on launch") -> None:
        self.state, self.state_reason = "failed", {"Code": code, "Message": message}

    def end_later(self) -> None:
        world().later(self.fail if "image-failed" in world().effects else self.finish)

    def get_filter_value(self, filter_name: str, method_name: str | None = None) -> Any:
        plain = {
            "root-device-name": self.root_device_name, "root-device-type": self.root_device_type, "hypervisor": self.hypervisor,
            "description": self.description, "ena-support": self.ena_support, "image-type": self.image_type,
            "creation-date": self.creation_date.strftime("%Y-%m-%dT%H:%M:%S.000Z"), "source-image-id": self.source_image_id or "",
            "block-device-mapping.snapshot-id": [snapshot.id for snapshot in self.snapshots],
            "boot-mode": self.boot_mode or "", "imds-support": self.imds_support or "",
        }  # fmt: skip
        return plain[filter_name] if filter_name in plain else super().get_filter_value(filter_name, method_name)


def find(region: str, image_id: str, *, own: bool = False) -> StrictAmi:
    """Refused when there is none, or when it is somebody else's and ours is wanted."""
    if not re.fullmatch(r"ami-[0-9a-f]{8,17}", image_id or ""):
        raise Refused("InvalidAMIID.Malformed", f'Invalid id: "{image_id}" (expecting "ami-...")')
    found = ec2_backends[ACCOUNT][region].amis.get(image_id)
    if found is None:
        raise Refused("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
    if own and found.owner_id != ACCOUNT:
        raise Refused("AuthFailure", f"Not authorized for images: [{image_id}]", 403)
    return found


def name_is_free(backend: Any, name: str) -> None:
    """Refused for a name that AMIs may not have or that one has."""
    if not NAME.fullmatch(name or ""):
        raise Refused(
            "InvalidAMIName.Malformed", "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, ( ) . - / _"
        )
    for image in backend.amis.values():
        if image.name == name and image.owner_id == ACCOUNT:
            raise Refused("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {image.id}")


def tags_for(wanted: list[dict[str, Any]] | None, kinds: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """TagSpecifications as {kind: {key: value}}. Refused for kinds that the action does not tag."""
    found: dict[str, dict[str, str]] = {kind: {} for kind in kinds}
    for one in wanted or []:
        if one.get("ResourceType") not in kinds:
            raise Refused("InvalidParameterValue", f"'{one.get('ResourceType')}' is not a valid taggable resource type for this operation.")
        if not one.get("Tags"):
            raise Refused("InvalidParameterValue", "Tag specification must have at least one tag")
        for tag in one["Tags"]:
            if tag["Key"].startswith("aws:"):
                raise Refused("InvalidParameterValue", f"Tag keys starting with 'aws:' are reserved for internal use: {tag['Key']}")
            found[one["ResourceType"]][tag["Key"]] = tag.get("Value", "")
    return found


def kms_key(region: str, key: str) -> str | None:
    """The ARN of a key by id, ARN, alias or alias' ARN; None when it does not exist in the region or is not enabled."""
    from moto.kms.models import kms_backends

    if key.startswith("arn:") and key.split(":")[3] != region:
        return None
    backend = kms_backends[ACCOUNT][region]
    try:
        found = backend.describe_key(key)
    except Exception:
        return None
    return str(found.arn) if found.enabled else None


def default_key(region: str) -> str:
    """alias/aws/ebs, made when first needed."""
    backend = ec2_backends[ACCOUNT][region]
    return str(backend.default_kms_key_id or backend._create_default_encryption_key())
