"""Which steps of a template a build runs, and from which layer it may start: `--no-cache`, `--from` and `--until`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from baker.core.errors import UsageError
from baker.plan.requests import BuildOptions
from baker.template.model import Template


@dataclass(frozen=True)
class LayerOptions:
    """Which layers a build may use and which steps it runs. Steps are numbered from 1."""

    use: bool = True  # False: --no-cache
    first: int | None = None  # --from: this step and those after it run
    last: int | None = None  # --until: no step after this one runs


def layer_options(template: Template, options: BuildOptions) -> LayerOptions:
    """The layer options of a build of `template`, with `--from` and `--until` parsed.

    UsageError for a step that does not exist or is ambiguous, and for a range that ends before it begins.
    """
    names = [step.name for step in template.provisioners]
    begin, end = (step_number(names, text) if text else None for text in (options.first, options.last))
    if begin and end and begin > end:
        raise UsageError(f"--from names step {begin}, which comes after step {end} of --until", code="usage.step-range")
    return LayerOptions(use=not options.no_cache, first=begin, last=end)


def step_number(names: Sequence[str], text: str) -> int:
    """The number of the step that `text` names, by its number or its name. UsageError when no step has that name, or several."""
    found = [index for index, name in enumerate(names, start=1) if text in (name, str(index))]
    if len(found) == 1:
        return found[0]
    there = ", ".join(f"{index} {name}" for index, name in enumerate(names, start=1))
    if found:
        raise UsageError(f"several steps are called {text!r}", hint=f"use its number; the steps are: {there}", code="usage.ambiguous-step")
    near = difflib.get_close_matches(text, names, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"the steps are: {there or 'none'}"
    raise UsageError(f"there is no step {text!r}", hint=hint, code="usage.unknown-step")
