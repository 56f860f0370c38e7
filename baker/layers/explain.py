"""Explain for each step of a plan why it would come from a layer or run, by comparison with the template's last build."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from baker.catalog.records import BuildRecord, StepRecord
from baker.layers import policy
from baker.layers.store import Layer
from baker.plan.plan import Plan, PlannedStep, recorded_machine_spec
from baker.plan.step_range import LayerOptions

NOT_KEPT = "not kept"


@dataclass(frozen=True)
class Explained:
    """What a build would do about one step."""

    index: int  # from 1
    cached: bool  # whether the step comes from a layer
    reason: str  # why it runs; "" when it is cached
    has_layer: bool  # whether there is a layer after it
    why_not_kept: str  # why the build would keep no layer after it; "" when it would, or when there is one


def explain(
    plan: Plan, options: LayerOptions, find: Callable[[str], Layer | None], last: BuildRecord | None, now: float
) -> list[Explained]:
    """Explain each step, in order. `find` returns the layer with a key; `now` in seconds since the epoch."""
    usable = list(policy.candidates(plan, options, find, now=now, username=_username(plan)))
    depth = usable[0].depth if usable else 0
    changed = source_changes(plan, last)
    before = {step.index: step for step in last.steps} if last else {}
    explained = []
    for planned in plan.steps:
        layer = find(planned.key)
        if planned.index <= depth:
            reason, cached = "", True
        else:
            old = policy.too_old(plan.steps[: planned.index], layer.record.ran, now) if layer else ""
            reason = _requested(planned, options) or _changed(planned, before.get(planned.index), changed)
            reason, cached = reason or _unusable(layer, old, _why_not_kept(plan, planned, before.get(planned.index))), False
            changed = changed or (["an earlier step"] if _differs(planned, before.get(planned.index)) else [])
        why_not_kept = "" if layer else _why_not_kept(plan, planned, before.get(planned.index))
        explained.append(Explained(planned.index, cached, reason, layer is not None, why_not_kept))
    return explained


def _username(plan: Plan) -> str:
    return plan.template.communicator.ssh_username or plan.source.ssh_username or "root"


def _requested(planned: PlannedStep, options: LayerOptions) -> str:
    """The option or template key that makes the step run; "" when there is none."""
    if not planned.step.cache.enabled:
        return "cache: false"
    if not options.use:
        return "--no-cache"
    return "--from" if options.first and planned.index >= options.first else ""


def _changed(planned: PlannedStep, before: StepRecord | None, changed: list[str]) -> str:
    """The change since the last build that makes the step run; "" when there is none. `changed`: what changed before this step."""
    if before is None or not before.key:
        return "never run"
    own = list(differences(before.inputs, planned.inputs))
    if own:
        return f"changed: {', '.join(own)}"
    if changed:
        return f"after a change of {', '.join(changed)}"
    if before.status not in ("done", "cached"):
        return "failed in the last build" if before.status == "failed" else "never run"
    return ""


def _unusable(layer: Layer | None, old: str, why_not_kept: str) -> str:
    """Why an unchanged step that ran before does not come from a layer. `old`: the name of a step older than its `max_age`, or ""."""
    if old:
        return f"{old} is older than its max_age"
    if layer:
        return "its layer cannot be used"
    return NOT_KEPT if why_not_kept else "its layer was removed"


def _differs(planned: PlannedStep, before: StepRecord | None) -> bool:
    return before is None or before.key != planned.key


def _why_not_kept(plan: Plan, planned: PlannedStep, before: StepRecord | None) -> str:
    """Why a build would keep no layer after the step, as far as that is known before it runs; else ""."""
    never = policy.never_kept(plan, planned.index)
    if (
        never
        or planned.step.cache.keep
        or before is None
        or before.key != planned.key
        or before.status != "done"
        or policy.pays(before.seconds, policy.FIRST_COST)
    ):
        return never
    return f"{before.seconds:.1f} s of work, which saves less time than a layer costs"


def source_changes(plan: Plan, last: BuildRecord | None) -> list[str]:
    """What changed before all steps since the last build: the source, and settings of the builder."""
    if last is None or not last.source.get("digest"):
        return []
    found = ["the source"] if last.source["digest"] != plan.source.digest else []
    now = recorded_machine_spec(plan.template)
    keys = plan.template.builder.machine_key(plan.machine_spec)
    return found + [f"builder.{name}" for name in keys if last.shape.get(name) != now.get(name)]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """The names of the inputs of a step that differ: files by path, settings by their dotted place in the step."""
    if before.get("kind") != now.get("kind"):
        yield "kind"
        return
    files = {**before.get("files", {}), **now.get("files", {})}
    yield from sorted(name for name in files if before.get("files", {}).get(name) != now.get("files", {}).get(name))
    yield from _paths(before.get("config", {}), now.get("config", {}), "")


def _paths(before: Any, now: Any, place: str) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in sorted({*before, *now}):
            yield from _paths(before.get(name), now.get(name), f"{place}.{name}" if place else str(name))
    elif before != now:
        yield place
