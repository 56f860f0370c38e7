"""The publication targets by kind: built-in ones, and plugins in the entry-point group `baker.publish_targets`."""

from __future__ import annotations

from baker.core.plugins import Plugins
from baker.publish.base import PublishTarget

GROUP = "baker.publish_targets"
BUILT_IN = {"ami": "baker.publish.ami:AmiTarget"}
TARGETS = Plugins[PublishTarget](
    GROUP, "publication target", BUILT_IN, instances=True, methods=("publish", "reclaim"), needs={"ami": "pip install boto3"}
)


def kinds() -> tuple[str, ...]:
    """Every kind that `--to` can name, built-in ones first."""
    return TARGETS.names()


def get(kind: str) -> PublishTarget:
    """The target of `kind`. UsageError when there is none, or when its package is broken."""
    return TARGETS.get(kind)


def all_for_sweep() -> tuple[PublishTarget, ...]:
    """One target of every kind, to ask which of them knows a ledger entry."""
    return tuple(get(kind) for kind in kinds())
