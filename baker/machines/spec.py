"""The configuration of the builder that a recorded image was built with, and with values from the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from baker.core.errors import HostError
from baker.core.model import Accelerator
from baker.template.builders import BuilderConfig, config_of
from baker.template.model import Template


def spec_of(kind: str, recorded: Mapping[str, Any]) -> BuilderConfig:
    """The configuration of a builder from what the record of a build says of the machine. HostError when that is not enough."""
    try:
        return config_of(kind).from_record(kind, recorded)
    except ValueError as error:
        raise HostError(
            f"the record does not say how to set up the builder {kind}: {error}",
            hint="it was written by another version of the builder, or one of these keys had a secret value",
            code="record.builder-unusable",
        ) from error


def with_accelerator(template: Template, accelerator: Accelerator | None) -> Template:
    """The template with another accelerator, where its builder has one."""
    return replace(template, builder=template.builder.with_values(accelerator=accelerator))
