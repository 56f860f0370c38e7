"""The kinds of release targets by name: the built-in ones, and those of plugins in the entry-point group `baker.release_targets`."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from baker.core.errors import UsageError

if TYPE_CHECKING:
    from baker.release.targets.base import Factory

GROUP = "baker.release_targets"
BUILT_IN = {
    "asg": ("baker.release.targets.asg", "AutoScalingGroup"),
    "lt": ("baker.release.targets.lt", "LaunchTemplate"),
    "ssm": ("baker.release.targets.ssm", "Parameter"),
}
EXAMPLES = "--to asg/GROUP, --to lt/LAUNCH-TEMPLATE, --to ssm//PARAMETER/PATH"


def kinds() -> tuple[str, ...]:
    """Every kind that can be named."""
    return tuple(sorted({*BUILT_IN, *(point.name for point in _plugins())}))


def split(text: str) -> tuple[str, str]:
    """Kind and name of "asg/web-prod". UsageError when it is no target."""
    kind, slash, name = text.partition("/")
    if not slash or not kind or not name:
        raise UsageError(f"{text!r} is no release target", hint=EXAMPLES)
    return kind, name


def get(kind: str) -> Factory:
    """The factory of `kind`. UsageError when nobody has that kind."""
    if kind in BUILT_IN:
        module, name = BUILT_IN[kind]
        factory: Factory = getattr(importlib.import_module(module), name)
        return factory
    for point in _plugins():
        if point.name == kind:
            loaded: Factory = point.load()
            return loaded
    raise UsageError(f"there is no release target of kind {kind!r}", hint=f"there are: {', '.join(kinds())}")


def _plugins() -> Iterable[EntryPoint]:
    return entry_points(group=GROUP)
