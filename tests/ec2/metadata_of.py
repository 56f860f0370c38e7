"""What the metadata service says of one instance."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from tests.ec2.world import ACCOUNT

GUEST_ADDRESS = "169.254.0.15"  # what QEMU's DHCP gives the guest


def uuid(instance: Any) -> str:
    """The machine's: begins with "ec2", by which cloud-init knows where it is."""
    digits = hashlib.sha256(instance.id.encode()).hexdigest()
    return f"ec2{digits[3:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:32]}"


def tree(instance: Any) -> dict[str, Any]:
    """{"meta-data": ..., "user-data": bytes or None, "dynamic": ...}; see imds.find for how it is listed."""
    return {
        "meta-data": _meta(instance),
        "user-data": user_data(instance),
        "dynamic": {"instance-identity": {"document": _document(instance)}},
    }


def user_data(instance: Any) -> bytes | None:
    return base64.b64decode(instance.user_data.as_bytes()) if instance.user_data else None


def _meta(instance: Any) -> dict[str, Any]:
    card = instance.nics[0]
    name = f"ip-{card.private_ip_address.replace('.', '-')}"
    found: dict[str, Any] = {
        "ami-id": instance.image_id, "ami-launch-index": instance.ami_launch_index, "hostname": instance.private_dns_name,
        "instance-action": "none", "instance-id": instance.id, "instance-life-cycle": instance.lifecycle or "on-demand",
        "instance-type": instance.instance_type, "local-hostname": instance.private_dns_name or name, "local-ipv4": GUEST_ADDRESS,
        "mac": card.mac_address, "profile": "default-hvm", "reservation-id": "r-0123456789abcdef0",
        "security-groups": "\n".join(group.name for group in instance.security_groups),
        "block-device-mapping": {"ami": instance.root_device_name, "root": instance.root_device_name},
        "placement": {"availability-zone": instance.availability_zone, "region": instance.region_name},
        "services": {"domain": "amazonaws.com", "partition": "aws"},
        "network": {"interfaces": {"macs": {card.mac_address: _card(instance)}}},
    }  # fmt: skip
    if card.public_ip:
        found["public-ipv4"] = card.public_ip
    if key := instance.ec2_backend.key_pairs.get(instance.key_name):
        public = key.material_public
        text = (public.decode() if isinstance(public, bytes) else public).strip()
        text = text if len(text.split()) > 2 else f"{text} {instance.key_name}"
        found["public-keys"] = {"": [f"0={instance.key_name}"], "0": {"openssh-key": text}}
    if str(instance.metadata_options.instance_metadata_tags) == "enabled":
        found["tags"] = {"instance": {tag["key"]: tag["value"] for tag in instance.get_tags()}}
    return found


def _card(instance: Any) -> dict[str, Any]:
    card = instance.nics[0]
    return {
        "device-number": "0", "interface-id": card.id, "local-ipv4s": GUEST_ADDRESS, "mac": card.mac_address, "owner-id": ACCOUNT,
        "subnet-id": instance.subnet_id, "vpc-id": instance.vpc_id, "subnet-ipv4-cidr-block": "169.254.0.0/16",
    }  # fmt: skip


def _document(instance: Any) -> str:
    return json.dumps(
        {
            "accountId": ACCOUNT, "architecture": instance.architecture, "availabilityZone": instance.availability_zone,
            "imageId": instance.image_id,
            "instanceId": instance.id, "instanceType": instance.instance_type, "privateIp": GUEST_ADDRESS, "region": instance.region_name,
            "version": "2017-09-30",
        }
    )  # fmt: skip
