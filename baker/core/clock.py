"""The clock of stages and waiters. Tests replace it by one that does not wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """`now`: seconds of a monotonic clock; `date`: seconds since the epoch; `sleep`: wait for a number of seconds."""

    now: Callable[[], float] = time.monotonic
    date: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
