"""What is in an account before bake comes: other people's images, AWS's public parameters."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moto.ec2.models import ec2_backends

from tests.ec2.images import StrictAmi
from tests.ec2.snapshots import StrictSnapshot
from tests.ec2.world import ACCOUNT, OTHER_ACCOUNT


def seed_image(name: str, region: str, size: int = 8, disk: str = "", owner: str = OTHER_ACCOUNT, architecture: str = "x86_64",
               public: bool = True, boot_mode: str | None = None, created: str = "", encrypted: bool = False,
               root_device_name: str = "/dev/xvda", owner_alias: str | None = None) -> str:  # fmt: skip
    """An available AMI; `disk` is a qcow2 or raw file that its machines boot from. Returns its id."""
    backend = ec2_backends[ACCOUNT][region]
    snapshot = StrictSnapshot(backend, size, name, owner=owner, encrypted=encrypted)
    snapshot.finish()
    if disk:
        snapshot.image = (Path(disk), "raw" if disk.endswith(".raw") else "qcow2")
    mapping: dict[str, Any] = {
        "DeviceName": root_device_name,
        "Ebs": {"SnapshotId": snapshot.id, "VolumeSize": size, "VolumeType": "gp3", "DeleteOnTermination": True, "Encrypted": encrypted},
    }
    made = StrictAmi(
        backend, name, name, [mapping], owner_id=owner, public=public, architecture=architecture, boot_mode=boot_mode,
        root_device_name=root_device_name, owner_alias=owner_alias,
        creation_date=datetime.strptime(created, "%Y-%m-%dT%H:%M:%S.000Z") if created else None,  # noqa: DTZ007
    )  # fmt: skip
    made.finish()
    return made.id


def seed_parameter(name: str, value: str, region: str) -> None:
    """A public parameter such as /aws/service/debian/release/13/latest/amd64."""
    from moto.ssm.models import Parameter, ssm_backends

    ssm_backends[ACCOUNT][region]._parameters[name] = [
        Parameter(
            account_id=ACCOUNT,
            name=name,
            value=value,
            parameter_type="String",
            description="",
            allowed_pattern=None,
            keyid=None,
            last_modified_date=datetime.now(UTC),
            version=1,
            data_type="aws:ec2:image",
            tier="Standard",
        )
    ]


def remove_image(image: str, region: str) -> None:
    """Gone, whoever owns it."""
    del ec2_backends[ACCOUNT][region].amis[image]
