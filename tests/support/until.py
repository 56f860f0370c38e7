"""Waiting with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float, what: str | Callable[[], str], *, pause: float = 0.02) -> T:
    """Call `condition` every `pause` seconds until its value is true, and return the value. AssertionError with `what` after `seconds`;
    a function `what` is called then, to include the last state."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {seconds:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(pause)
    return found
