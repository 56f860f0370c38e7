"""The kinds of release targets: built-in ones, and plugins in the entry-point group `baker.release_targets`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baker.core.errors import UsageError
from baker.core.plugins import Plugins

if TYPE_CHECKING:
    from baker.release.targets.base import Factory

GROUP = "baker.release_targets"
BUILT_IN = {
    "asg": "baker.release.targets.asg:AutoScalingGroup",
    "lt": "baker.release.targets.lt:LaunchTemplate",
    "ssm": "baker.release.targets.ssm:Parameter",
}
TARGETS: Plugins[Factory] = Plugins(GROUP, "release target of kind", BUILT_IN, needs=dict.fromkeys(BUILT_IN, "pip install boto3"))
EXAMPLES = "--to asg/GROUP, --to lt/LAUNCH-TEMPLATE, --to ssm//PARAMETER/PATH"


def kinds() -> tuple[str, ...]:
    """Every kind that can be named, built-in ones first."""
    return TARGETS.names()


def get(kind: str) -> Factory:
    """The factory of `kind`. UsageError when there is none, or when its package is broken."""
    return TARGETS.get(kind)


def split(text: str) -> tuple[str, str]:
    """Kind and name of "asg/web-prod". UsageError when `text` is not a release target."""
    kind, slash, name = text.partition("/")
    if not slash or not kind or not name:
        raise UsageError(f"{text!r} is not a release target", hint=EXAMPLES, code="release.target-unreadable")
    return kind, name
