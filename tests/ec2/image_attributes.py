"""What can be said of an AMI after it was made: deprecation, protection, permissions, IMDS support; and of its snapshots: permissions."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult, EmptyResult

from tests.ec2 import snapshots
from tests.ec2.images import StrictAmi, default_key, find
from tests.ec2.refusals import Refused

ACCOUNT_ID = re.compile(r"\d{12}")
ORGANISATION = re.compile(r"arn:aws:organizations::\d{12}:organization/o-[a-z0-9]{10,32}")
UNIT = re.compile(r"arn:aws:organizations::\d{12}:ou/o-[a-z0-9]{10,32}/ou-[0-9a-z]{4,32}-[0-9a-z]{8,32}")
RULES = {"UserId": ACCOUNT_ID, "OrganizationArn": ORGANISATION, "OrganizationalUnitArn": UNIT, "Group": re.compile("all")}
DONE = {"Return": True}


def enable_image_deprecation(self: Any) -> ActionResult:
    image, when = find(self.region, self._get_param("ImageId"), own=True), self._get_param("DeprecateAt")
    if when <= datetime.now(UTC).replace(tzinfo=None):
        raise Refused("InvalidParameterValue", f"DeprecateAt {when} is in the past")
    if when.year > datetime.now(UTC).year + 10:
        raise Refused("InvalidParameterValue", "DeprecateAt is more than 10 years away")
    self.error_on_dryrun()
    image.deprecation_time = when.strftime("%Y-%m-%dT%H:%M:00.000Z")
    return ActionResult(DONE)


def disable_image_deprecation(self: Any) -> ActionResult:
    find(self.region, self._get_param("ImageId"), own=True).deprecation_time = None
    return ActionResult(DONE)


def enable_image_deregistration_protection(self: Any) -> ActionResult:
    image = find(self.region, self._get_param("ImageId"), own=True)
    self.error_on_dryrun()
    image.deregistration_protection = "enabled-with-cooldown" if self._get_param("WithCooldown") else "enabled-without-cooldown"
    return ActionResult({"Return": image.deregistration_protection})


def disable_image_deregistration_protection(self: Any) -> ActionResult:
    """With a cooldown the image stays protected for 24 hours, which is for ever here."""
    image = find(self.region, self._get_param("ImageId"), own=True)
    self.error_on_dryrun()
    if image.deregistration_protection == "enabled-with-cooldown":
        return ActionResult({"Return": "disabled-after-cooldown"})
    image.deregistration_protection = "disabled"
    return ActionResult({"Return": "disabled"})


def disable_image(self: Any) -> ActionResult:
    image = find(self.region, self._get_param("ImageId"), own=True)
    if image.state not in ("available", "disabled"):
        raise Refused("InvalidAMIID.Unavailable", f"The image {image.id} is {image.state}")
    self.error_on_dryrun()
    image.state, image.launch_permissions = "disabled", []
    return ActionResult(DONE)


def enable_image(self: Any) -> ActionResult:
    image = find(self.region, self._get_param("ImageId"), own=True)
    self.error_on_dryrun()
    if image.state == "disabled":
        image.state = "available"
    return ActionResult(DONE)


def modify_image_attribute(self: Any) -> ActionResult:
    image = find(self.region, self._get_param("ImageId"), own=True)
    add, remove = _permissions(self)
    for permission in [*add, *remove]:
        for name, value in permission.items():
            if not RULES[name].fullmatch(value):
                raise Refused("InvalidAMIAttributeItemValue", f'Invalid attribute item value "{value}" for {name} item type.')
    if add and image.state != "available":
        raise Refused("InvalidAMIID.Unavailable", f"The image {image.id} is {image.state}")
    if add:
        _can_be_shared(self.region, image)
    imds, description = self._get_param("ImdsSupport") or {}, self._get_param("Description") or {}
    if imds.get("Value") not in (None, "v2.0"):
        raise Refused("InvalidParameterValue", f"imdsSupport {imds['Value']}")
    if not (add or remove or imds or description):
        raise Refused("InvalidParameterCombination", "No attributes specified.")
    self.error_on_dryrun()
    image.launch_permissions = [one for one in image.launch_permissions if one not in remove]
    image.launch_permissions += [one for one in add if one not in image.launch_permissions]
    image.imds_support = imds.get("Value", image.imds_support)
    image.description = description.get("Value", image.description)
    return EmptyResult()


def _permissions(self: Any) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """What is added and removed, said in either of the two ways."""
    wanted = self._get_param("LaunchPermission") or {}
    add, remove = list(wanted.get("Add", [])), list(wanted.get("Remove", []))
    operation = self._get_param("OperationType")
    said = [
        {kind: value}
        for name, kind in (
            ("UserIds", "UserId"), ("UserGroups", "Group"), ("OrganizationArns", "OrganizationArn"),
            ("OrganizationalUnitArns", "OrganizationalUnitArn"),
        )
        for value in self._get_param(name) or []
    ]  # fmt: skip
    if said and operation not in ("add", "remove"):
        raise Refused("InvalidParameterValue", "OperationType must be add or remove")
    (add if operation == "add" else remove).extend(said)
    return add, remove


def _can_be_shared(region: str, image: StrictAmi) -> None:
    """Encrypted with the account's default key an image cannot be used by others."""
    for snapshot in image.snapshots:
        if snapshot.encrypted and snapshot.kms_key_id in (None, default_key(region)):
            raise Refused("InvalidParameter", f"{snapshot.id}: snapshots encrypted with the AWS managed CMK can't be shared")


def describe_image_attribute(self: Any) -> ActionResult:
    image, name = find(self.region, self._get_param("ImageId"), own=True), self._get_param("Attribute")
    if name == "launchPermission":
        return ActionResult({"ImageId": image.id, "LaunchPermissions": image.launch_permissions})
    values = {
        "description": ("Description", image.description),
        "bootMode": ("BootMode", image.boot_mode),
        "imdsSupport": ("ImdsSupport", image.imds_support),
        "lastLaunchedTime": ("LastLaunchedTime", image.last_launched_time),
        "sriovNetSupport": ("SriovNetSupport", image.sriov),
        "deregistrationProtection": ("DeregistrationProtection", image.deregistration_protection),
        "tpmSupport": ("TpmSupport", image.tpm_support),
    }
    if name not in values:
        raise Refused("InvalidParameterValue", f"Value ({name}) for parameter attribute is invalid")
    label, value = values[name]
    return ActionResult({"ImageId": image.id, label: {"Value": value} if value is not None else {}})


def modify_snapshot_attribute(self: Any) -> ActionResult:
    snapshot = snapshots.find(self.region, self._get_param("SnapshotId"))
    wanted = self._get_param("CreateVolumePermission") or {}
    add, remove = list(wanted.get("Add", [])), list(wanted.get("Remove", []))
    said = [{"UserId": user} for user in self._get_param("UserIds") or []] + [
        {"Group": name} for name in self._get_param("GroupNames") or []
    ]
    (add if self._get_param("OperationType") == "add" else remove).extend(said)
    for permission in [*add, *remove]:
        for name, value in permission.items():
            if name not in ("UserId", "Group") or not RULES[name].fullmatch(value):
                raise Refused("InvalidAttributeItemValue", f'Invalid attribute item value "{value}" for {name} item type.')
    if add and snapshot.encrypted and snapshot.kms_key_id in (None, default_key(self.region)):
        raise Refused("InvalidParameter", f"{snapshot.id}: snapshots encrypted with the AWS managed CMK can't be shared")
    if add and snapshot.status != "completed":
        raise Refused("IncorrectState", f"The snapshot {snapshot.id} is {snapshot.status}")
    self.error_on_dryrun()
    users, groups = snapshot.create_volume_permission_userids, snapshot.create_volume_permission_groups
    users.update(one["UserId"] for one in add if "UserId" in one)
    users.difference_update(one["UserId"] for one in remove if "UserId" in one)
    groups.update(one["Group"] for one in add if "Group" in one)
    groups.difference_update(one["Group"] for one in remove if "Group" in one)
    return EmptyResult()
