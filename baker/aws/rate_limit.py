"""Limit the rate of requests of many threads, adaptively: slow down after each throttled request, speed up after each success."""

from __future__ import annotations

import threading

from baker.core.clock import Clock

FIRST_GAP, LONGEST_GAP, NO_GAP = 0.004, 1.0, 0.0005  # seconds between two requests of all threads together
SLOWER, FASTER = 2.0, 0.995  # factors for the gap
THROTTLING_SECONDS = 0.5  # answers within this time count as one: all threads are throttled at the same time


class RateLimiter:
    """A rate limit that the requesting threads share."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._gap = 0.0
        self._next = 0.0
        self._slowed = float("-inf")  # when the gap was last increased

    def wait(self) -> None:
        """Sleep until this thread may send its request."""
        with self._lock:
            now = self._clock.now()
            at = max(now, self._next)
            self._next = at + self._gap
        if at > now:
            self._clock.sleep(at - now)

    def throttled(self) -> None:
        """Slow down after a request that was throttled."""
        with self._lock:
            now = self._clock.now()
            if now - self._slowed >= THROTTLING_SECONDS:
                self._slowed = now
                self._gap = min(max(self._gap * SLOWER, FIRST_GAP), LONGEST_GAP)

    def succeeded(self) -> None:
        """Speed up after a request that succeeded."""
        if self._gap:
            with self._lock:
                self._gap = self._gap * FASTER if self._gap > NO_GAP else 0.0
