"""SIGINT, SIGTERM and SIGHUP as an exception, so that every `finally` runs. Further signals do not disturb the cleanup."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from baker.core.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 3  # the third signal ends the process at once; `bake sweep` then cleans up by the ledger


@contextmanager
def interruptible(warn: Callable[[str], None], on_first: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Raise Interrupted in the main thread at the first signal, after calling `on_first`. `warn` reports the second signal."""
    count = 0

    def interrupt(number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count >= PATIENCE:
            os._exit(128 + number)
        if count > 1:
            _call_safely(lambda: warn("still cleaning up; another signal ends bake at once, and `bake sweep` must clean up the rest"))
            return
        _call_safely(on_first)
        raise Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _call_safely(call: Callable[[], None]) -> None:
    """Call from within a signal handler. The signal may have interrupted a write to the same stream, which then raises."""
    try:
        call()
    except (RuntimeError, OSError, ValueError):
        pass
