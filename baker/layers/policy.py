"""Which layers a build may start from, and after which steps a layer is worth its cost. Pure functions of their arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from baker.core.digests import canonical
from baker.layers.store import Layer
from baker.plan.plan import Plan, PlannedStep
from baker.plan.step_range import LayerOptions

REUSE = 0.5  # assumed probability that a layer is reused: every second edit of a template is above a given step
FIRST_COST = 1.5  # assumed cost of making a layer in seconds, before one was measured
ROOM = 2  # free space that making a layer needs, in multiples of the machine's memory


@dataclass(frozen=True)
class Candidate:
    """A layer that a build may start from. `depth`: how many steps have run in it."""

    depth: int
    layer: Layer


def keys(plan: Plan) -> tuple[str, ...]:
    """The keys of the machine's states: before the first step, then after each step."""
    return (plan.root_key, *(planned.key for planned in plan.steps))


def deepest_usable(plan: Plan, options: LayerOptions) -> int:
    """The largest number of steps that may come from a layer; -1 when no layer may be used, not even one before the first step."""
    if not options.use:
        return -1
    limits = [len(plan.steps), *(planned.index - 1 for planned in plan.steps if not planned.step.cache.enabled)]
    limits += [options.first - 1] if options.first else []
    limits += [options.last] if options.last else []
    return min(limits)


def candidates(plan: Plan, options: LayerOptions, find: Callable[[str], Layer | None], *, now: float, username: str) -> Iterator[Candidate]:
    """The layers that the build may start from, deepest first. `now`: seconds since the epoch; `username`: who logs in to the machine."""
    all_keys = keys(plan)
    for depth in range(deepest_usable(plan, options), -1, -1):
        layer = find(all_keys[depth])
        if layer and layer.record.username == username and not too_old(plan.steps[:depth], layer.record.ran, now):
            yield Candidate(depth, layer)


def too_old(steps: tuple[PlannedStep, ...], ran: Mapping[str, float], now: float) -> str:
    """The name of the first step that ran longer ago than its `max_age`; "" when there is none. `ran`: key -> seconds since the epoch."""
    for planned in steps:
        age = planned.step.cache.max_age
        if age is not None and now - ran.get(planned.key, 0.0) > age:
            return planned.name
    return ""


def must_run(plan: Plan, ran: Mapping[str, float], now: float) -> str:
    """Why the build must run although an image with its fingerprint exists; "" when it need not."""
    always = next((planned.name for planned in plan.steps if not planned.step.cache.enabled), "")
    if always:
        return f"{always} runs in every build"
    old = too_old(plan.steps, ran, now)
    return f"{old} ran longer ago than its max_age" if old else ""


def uses_secret(plan: Plan, planned: PlannedStep) -> bool:
    """Whether the step's configuration contains a sensitive value."""
    text = canonical(planned.step.config.model_dump(mode="json"))
    return bool(plan.template.secrets.seal(text) != text)


def never_kept(plan: Plan, depth: int) -> str:
    """Why there must be no layer after `depth` steps; "" when there may be one."""
    for planned in plan.steps[:depth]:
        if not planned.step.cache.enabled:
            return f"{planned.name} runs in every build" if planned.index < depth else "it runs in every build"
        if uses_secret(plan, planned):
            return "a secret is in its memory" if planned.index == depth else f"the secret of {planned.name} is in its memory"
    return ""


def pays(work: float, cost: float) -> bool:
    """Whether a layer that costs `cost` seconds and saves `work` seconds at each reuse is expected to save time."""
    return work * REUSE >= cost
