"""Which layers a build may go on from, and which machines are worth keeping. Pure: no clock and no file but those handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from baker.core.digests import canonical
from baker.layers.store import Layer
from baker.plan.plan import Plan, PlannedStep
from baker.plan.step_range import LayerOptions

REUSE = 0.5  # how likely it is that a kept machine is gone on from: of two edits of a template, one is above a given step
FIRST_COST = 1.5  # seconds that keeping is taken to cost before it was measured
ROOM = 2  # times the machine's memory: how much has to be free on the disk of the layers


@dataclass(frozen=True)
class Candidate:
    """A layer that a build may go on from: `depth` steps are done in it."""

    depth: int
    layer: Layer


def keys(plan: Plan) -> tuple[str, ...]:
    """The key of the machine after each step, before the first one first."""
    return (plan.root_key, *(planned.key for planned in plan.steps))


def deepest_usable(plan: Plan, wish: LayerOptions) -> int:
    """How many steps may come from a layer at all."""
    if not wish.use:
        return -1
    limits = [len(plan.steps), *(planned.index - 1 for planned in plan.steps if not planned.step.cache.enabled)]
    limits += [wish.first - 1] if wish.first else []
    limits += [wish.last] if wish.last else []
    return min(limits)


def candidates(plan: Plan, wish: LayerOptions, find: Callable[[str], Layer | None], *, now: float, username: str) -> Iterator[Candidate]:
    """The layers to go on from, deepest first."""
    all_keys = keys(plan)
    for depth in range(deepest_usable(plan, wish), -1, -1):
        layer = find(all_keys[depth])
        if layer and layer.record.username == username and not too_old(plan.steps[:depth], layer.record.ran, now):
            yield Candidate(depth, layer)


def too_old(steps: tuple[PlannedStep, ...], ran: Mapping[str, float], now: float) -> str:
    """The name of the first step that ran longer ago than its `max_age` allows; "" when there is none."""
    for planned in steps:
        age = planned.step.cache.max_age
        if age is not None and now - ran.get(planned.key, 0.0) > age:
            return planned.name
    return ""


def must_run(plan: Plan, ran: Mapping[str, float], now: float) -> str:
    """Why a build with this fingerprint has to be done anew all the same; "" when it has not."""
    always = next((planned.name for planned in plan.steps if not planned.step.cache.enabled), "")
    if always:
        return f"{always} runs in every build"
    old = too_old(plan.steps, ran, now)
    return f"{old} ran longer ago than its max_age" if old else ""


def uses_secret(plan: Plan, planned: PlannedStep) -> bool:
    """Whether a sensitive value stands in the step."""
    text = canonical(planned.step.config.model_dump(mode="json"))
    return bool(plan.template.secrets.seal(text) != text)


def never_kept(plan: Plan, depth: int) -> str:
    """Why the machine after `depth` steps is not kept whatever it costs; "" when it may be."""
    for planned in plan.steps[:depth]:
        if not planned.step.cache.enabled:
            return f"{planned.name} runs in every build" if planned.index < depth else "it runs in every build"
        if uses_secret(plan, planned):
            return "a secret is in its memory" if planned.index == depth else f"the secret of {planned.name} is in its memory"
    return ""


def pays(work: float, cost: float) -> bool:
    """Whether keeping, which costs `cost` seconds, saves more than that on average, when it saves `work` seconds each time."""
    return work * REUSE >= cost
