"""The builder that a template names: of a recorded image, and with what the command line says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from baker.core.model import Accelerator
from baker.template.ec2 import Ec2Spec
from baker.template.model import AnyBuilder, BuilderSpec, Template


def spec_of(kind: str, recorded: Mapping[str, Any]) -> AnyBuilder:
    """`recorded` is what the record says of the machine: for EC2 the template's own keys."""
    if kind == "ec2":
        return Ec2Spec(**{name: value for name, value in recorded.items() if name in Ec2Spec.model_fields})
    return BuilderSpec(kind=kind)


def with_accelerator(template: Template, accelerator: Accelerator | None) -> Template:
    """The template with another accelerator, where its builder has one."""
    if accelerator is None or not isinstance(template.builder, BuilderSpec):
        return template
    return replace(template, builder=template.builder.model_copy(update={"accelerator": accelerator}))
