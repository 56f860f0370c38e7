"""Step range."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from baker.core.errors import UsageError


@dataclass(frozen=True)
class LayerOptions:
    """What the person who starts a build says of layers. Numbers of steps count from 1."""

    use: bool = True  # False: --no-cache
    first: int | None = None  # --from: this step and those after it run
    last: int | None = None  # --until: nothing after this step runs


def layer_options(names: Sequence[str], *, no_cache: bool = False, first: str | None = None, last: str | None = None) -> LayerOptions:
    """What the command line says of layers, for a template whose steps have these `names`. UsageError for a step that does not exist."""
    begin, end = (step_number(names, text) if text else None for text in (first, last))
    if begin and end and begin > end:
        raise UsageError(f"step {begin}, to begin with, comes after step {end}, to stop after")
    return LayerOptions(use=not no_cache, first=begin, last=end)


def step_number(names: Sequence[str], text: str) -> int:
    """The number of the step that a person calls `text`: its number or its name. UsageError when there is none, or several."""
    found = [index for index, name in enumerate(names, start=1) if text in (name, str(index))]
    if len(found) == 1:
        return found[0]
    there = ", ".join(f"{index} {name}" for index, name in enumerate(names, start=1))
    if found:
        raise UsageError(f"several steps are called {text!r}", hint=f"say its number; there are: {there}")
    near = difflib.get_close_matches(text, names, 1)
    raise UsageError(f"there is no step {text!r}", hint=f"did you mean {near[0]!r}?" if near else f"there are: {there or 'none'}")
