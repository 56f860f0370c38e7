"""Time, as stages see it: tests have a clock that does not wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """`now`: seconds of a clock that only goes forward; `date`: seconds since the epoch; `sleep`: let seconds pass."""

    now: Callable[[], float] = time.monotonic
    date: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
