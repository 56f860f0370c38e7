"""A clock for waiting on the emulator: a sleep counts in full, but takes at most a hundredth of a second."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from baker.core.clock import Clock


@dataclass
class Hasty:
    """`slept`: requested seconds in total."""

    pause: float = 0.01
    slept: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: time.monotonic() + self.slept, date=lambda: time.time() + self.slept, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        time.sleep(min(self.pause, seconds))
