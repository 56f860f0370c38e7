"""The scope of the AWS resources of one machine or image: session, region, build and tags."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from baker.aws.resources import BUILD_TAG, access_details
from baker.aws.session import Aws
from baker.machines.base import NAMELESS, ImageName

KEY_PAIR, SECURITY_GROUP, INSTANCE, IMAGE = "ec2:key-pair", "ec2:security-group", "ec2:instance", "ec2:image"  # kinds in the ledger
MACHINE_TAG = "bake:machine"


@dataclass(frozen=True)
class Scope:
    """One build in one region. `machine` is the machine's name, or "" for resources that outlive machines."""

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
        """The name of the machine's resources, which is unique to this build and machine."""
        return f"bake-{self.build}-{self.machine}"

    def tags(self, name: str) -> dict[str, str]:
        found = {**self.extra_tags, "Name": name, BUILD_TAG: self.build}
        found |= {"bake:name": self.image.name, "bake:version": self.image.version} if self.image.name else {}
        return found | ({MACHINE_TAG: self.machine} if self.machine else {})

    def tag_specifications(self, *kinds: str, name: str | None = None) -> list[dict[str, Any]]:
        """The parameter TagSpecifications, which tags a resource at its creation."""
        tags = [{"Key": key, "Value": value} for key, value in self.tags(name or self.title).items()]
        return [{"ResourceType": kind, "Tags": tags} for kind in kinds]

    @property
    def details(self) -> dict[str, Any]:
        """The details of a ledger entry with which another process can make the same scope."""
        return {"region": self.region, "build": self.build, "machine": self.machine, "access": access_details(self.aws.access)}


def filters(**conditions: str) -> list[dict[str, Any]]:
    """The parameter Filters. `build` and `machine` mean bake's tags; a condition with the value "" is left out."""
    names = {"build": f"tag:{BUILD_TAG}", "machine": f"tag:{MACHINE_TAG}"}
    return [{"Name": names.get(key, key.replace("_", "-")), "Values": [value]} for key, value in conditions.items() if value]
