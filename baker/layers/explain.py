"""Why a step comes from a layer or does not: compared with what the template's last build was made of."""

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
    """What a build would do about one step. `keep`: why the machine after it would not be kept, "" if it would."""

    index: int
    cached: bool
    reason: str
    kept: bool
    keep: str


def explain(plan: Plan, wish: LayerOptions, find: Callable[[str], Layer | None], last: BuildRecord | None, now: float) -> list[Explained]:
    """One for each step, in order."""
    usable = list(policy.candidates(plan, wish, find, now=now, username=_username(plan)))
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
            reason = _told(planned, wish) or _why(planned, before.get(planned.index), changed)
            reason, cached = reason or _layer(layer, old, _not_kept(plan, planned, before.get(planned.index))), False
            changed = changed or (["an earlier step"] if _differs(planned, before.get(planned.index)) else [])
        keep = _not_kept(plan, planned, before.get(planned.index))
        explained.append(Explained(planned.index, cached, reason, layer is not None, "" if layer else keep))
    return explained


def _username(plan: Plan) -> str:
    return plan.template.communicator.ssh_username or plan.source.ssh_username or "root"


def _told(planned: PlannedStep, wish: LayerOptions) -> str:
    """A step that is carried out anew because somebody said so."""
    if not planned.step.cache.enabled:
        return "cache: false"
    if not wish.use:
        return "--no-cache"
    return "--from" if wish.first and planned.index >= wish.first else ""


def _why(planned: PlannedStep, before: StepRecord | None, changed: list[str]) -> str:
    """A step that is carried out anew because of what it is made of."""
    if before is None or not before.key:
        return "never carried out"
    own = list(differences(before.inputs, planned.inputs))
    if own:
        return f"changed: {', '.join(own)}"
    if changed:
        return f"after a change of {', '.join(changed)}"
    if before.status not in ("done", "cached"):
        return "failed in the last build" if before.status == "failed" else "never carried out"
    return ""


def _layer(layer: Layer | None, old: str, not_kept: str) -> str:
    """A step that was carried out just so before, but is not at hand."""
    if old:
        return f"{old} is older than its max_age"
    if layer:
        return "its layer cannot be used"
    return NOT_KEPT if not_kept else "its layer is gone"


def _differs(planned: PlannedStep, before: StepRecord | None) -> bool:
    return before is None or before.key != planned.key


def _not_kept(plan: Plan, planned: PlannedStep, before: StepRecord | None) -> str:
    """Why the machine after the step is not kept, as far as can be told beforehand."""
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
    return f"{before.seconds:.1f} s of work, less than keeping costs"


def source_changes(plan: Plan, last: BuildRecord | None) -> list[str]:
    """What is another below all steps."""
    if last is None or not last.source.get("digest"):
        return []
    found = ["the source"] if last.source["digest"] != plan.source.digest else []
    now = recorded_machine_spec(plan.template)
    keys = plan.template.builder.machine_key(plan.shape)
    return found + [f"builder.{name}" for name in keys if last.shape.get(name) != now.get(name)]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """The names of the inputs that are not the same: files by their path, the rest by their place in the step."""
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
