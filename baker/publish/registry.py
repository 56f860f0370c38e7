"""The publication targets by kind: the built-in one, and those that plugins bring in the entry-point group `baker.publish_targets`."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import cast

from baker.core.errors import UsageError
from baker.publish.base import PublishTarget

GROUP = "baker.publish_targets"
BUILT_IN = {"ami": "baker.publish.ami:AmiTarget"}


def kinds() -> tuple[str, ...]:
    """Every kind that `--to` can name, built-in ones first."""
    return (*BUILT_IN, *sorted(set(_plugins()) - set(BUILT_IN)))


def get(kind: str) -> PublishTarget:
    """The target of `kind`; its libraries load only now. UsageError when nobody has that kind, or its package is broken."""
    point = EntryPoint(kind, BUILT_IN[kind], GROUP) if kind in BUILT_IN else _plugins().get(kind)
    if point is None:
        raise UsageError(f"there is no publication target {kind!r}", hint=f"there are: {', '.join(kinds())}")
    try:
        target = point.load()()
    except Exception as error:  # whatever somebody else's package raises while it is imported
        raise UsageError(f"the publication target {kind!r} ({point.value}) cannot be loaded: {error}") from error
    if not all(callable(getattr(target, method, None)) for method in ("publish", "reclaim")):
        raise UsageError(f"the publication target {kind!r} ({point.value}) lacks publish() or reclaim()", hint="see docs/plugins.md")
    return cast(PublishTarget, target)


def all_for_sweep() -> tuple[PublishTarget, ...]:
    """One target of every kind, to ask which of them knows a ledger entry."""
    return tuple(get(kind) for kind in kinds())


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
