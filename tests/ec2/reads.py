"""Which parameters the emulator reads, action by action. What bake sends and is not here is refused: the emulator would ignore it.

A path is the names of a parameter without list indexes: "BlockDeviceMappings.Ebs.VolumeSize". A name stands for all that is below it
only with a star: "TagSpecifications.*".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.ec2.asked import Asked
from tests.ec2.reads_table import TABLE


def unread(asked: Asked) -> list[str]:
    """The parameters that nobody reads, as "ec2:RunInstances.Placement.Tenancy"; the action alone when it is not emulated."""
    if asked.name not in TABLE:
        return [asked.name]
    known = TABLE[asked.name].split()
    whole = tuple(name.removesuffix(".*") for name in known if name.endswith(".*"))
    return sorted(
        {
            f"{asked.name}.{path}"
            for path in paths(asked.parameters)
            if path not in known and not any(path == name or path.startswith(name + ".") for name in whole)
        }
    )


def paths(value: Any, prefix: str = "") -> Iterator[str]:
    """All leaves."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from paths(inner, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from paths(inner, prefix)
    else:
        yield prefix
