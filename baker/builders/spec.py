"""The builder of a recorded image, as a template would name it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from baker.template.ec2 import Ec2Spec
from baker.template.model import AnyBuilder, BuilderSpec


def spec_of(kind: str, recorded: Mapping[str, Any]) -> AnyBuilder:
    """`recorded` is what the record says of the machine: for EC2 the template's own keys."""
    if kind == "ec2":
        return Ec2Spec(**{name: value for name, value in recorded.items() if name in Ec2Spec.model_fields})
    return BuilderSpec(kind=kind)
