"""What every part of one EC2 machine or image is made with: where, for which build, under which tags."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from baker.aws.resources import BUILD_TAG, access_details
from baker.aws.session import Aws
from baker.machines.base import NAMELESS, ImageName

KEY_PAIR, SECURITY_GROUP, INSTANCE, IMAGE = "ec2:key-pair", "ec2:security-group", "ec2:instance", "ec2:image"  # the ledger's words
MACHINE_TAG = "bake:machine"


@dataclass(frozen=True)
class Scope:
    """One build in one region. `machine` is the machine's name, "" for what outlives machines."""

    aws: Aws
    region: str
    build: str
    image: ImageName = NAMELESS
    machine: str = ""
    extra_tags: dict[str, str] = field(default_factory=dict)

    @property
    def client(self) -> Any:
        return self.aws.client("ec2", self.region)

    @property
    def title(self) -> str:
        """The name of the resources of one machine. No other build or machine uses it."""
        return f"bake-{self.build}-{self.machine}"

    def tags(self, name: str) -> dict[str, str]:
        found = {**self.extra_tags, "Name": name, BUILD_TAG: self.build}
        found |= {"bake:name": self.image.name, "bake:version": self.image.version} if self.image.name else {}
        return found | ({MACHINE_TAG: self.machine} if self.machine else {})

    def tag_specifications(self, *kinds: str, name: str | None = None) -> list[dict[str, Any]]:
        """The parameter TagSpecifications: what is made bears its tags from its first moment."""
        tags = [{"Key": key, "Value": value} for key, value in self.tags(name or self.title).items()]
        return [{"ResourceType": kind, "Tags": tags} for kind in kinds]

    @property
    def details(self) -> dict[str, Any]:
        """What a ledger entry needs so that another process finds the way back."""
        return {"region": self.region, "build": self.build, "machine": self.machine, "access": access_details(self.aws.access)}


def filters(**wanted: str) -> list[dict[str, Any]]:
    """The parameter Filters. `build` and `machine` stand for the tags."""
    names = {"build": f"tag:{BUILD_TAG}", "machine": f"tag:{MACHINE_TAG}"}
    return [{"Name": names.get(key, key.replace("_", "-")), "Values": [value]} for key, value in wanted.items() if value]
