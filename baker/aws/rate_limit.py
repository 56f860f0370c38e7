"""How fast many threads may ask, found out by asking: slower each time the other side says "too fast", faster while it does not."""

from __future__ import annotations

import threading

from baker.core.clock import Clock

FIRST_GAP, LONGEST_GAP, NO_GAP = 0.004, 1.0, 0.0005  # seconds between two requests of all threads together
SLOWER, FASTER = 2.0, 0.995
ONE_COMPLAINT_SECONDS = 0.5  # what is said within this time is one complaint: all threads hear it at once


class Pace:
    """Shared by the threads that ask."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._gap = 0.0
        self._next = 0.0
        self._complained = float("-inf")

    def wait(self) -> None:
        """Until this thread may ask."""
        with self._lock:
            now = self._clock.now()
            at = max(now, self._next)
            self._next = at + self._gap
        if at > now:
            self._clock.sleep(at - now)

    def too_fast(self) -> None:
        with self._lock:
            now = self._clock.now()
            if now - self._complained >= ONE_COMPLAINT_SECONDS:
                self._complained = now
                self._gap = min(max(self._gap * SLOWER, FIRST_GAP), LONGEST_GAP)

    def fine(self) -> None:
        if self._gap:
            with self._lock:
                self._gap = self._gap * FASTER if self._gap > NO_GAP else 0.0
