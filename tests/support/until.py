"""Waiting with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float, what: str | Callable[[], str], *, pause: float = 0.02) -> T:
    """Ask `condition` again and again, `pause` seconds apart, until its value is true, and return that value. AssertionError that names
    `what` (a function is called for it at the end, to tell what was seen) when `seconds` have passed."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {seconds:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(pause)
    return found
