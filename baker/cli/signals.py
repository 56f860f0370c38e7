"""SIGINT, SIGTERM and SIGHUP as an exception, so that every `finally` runs; further ones do not disturb the cleanup."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from baker.core.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 3  # the third signal ends the process at once; the ledger knows what `bake sweep` has to do then


@contextmanager
def interruptible(say: Callable[[str], None], on_first: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Within it the first signal raises Interrupted in the main thread. `on_first` is called just before; `say` tells
    a person about further ones."""
    count = 0

    def interrupt(number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count >= PATIENCE:
            os._exit(128 + number)
        if count > 1:
            _tell(lambda: say("still cleaning up; once more ends bake at once, and `bake sweep` gives back what is left then"))
            return
        _tell(on_first)
        raise Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(call: Callable[[], None]) -> None:
    """Say something from within a signal handler: it may have interrupted a write to the very same stream, which then refuses."""
    try:
        call()
    except (RuntimeError, OSError, ValueError):
        pass
