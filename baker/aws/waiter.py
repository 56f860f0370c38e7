"""Waiting for AWS: by a deadline, with back-off and jitter, patient with what is not visible yet, impatient with what has failed.

botocore's own waiters have a fixed pace, a count instead of a deadline, and take "not found" just after a creation for an end.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from baker.aws.errors import AwsError
from baker.core.clock import Clock

T = TypeVar("T")
FIRST_SECONDS, LONGEST_SECONDS, GROWTH = 0.5, 15.0, 1.5
INVISIBLE_SECONDS = 60.0  # how long something just created may be "not found"


def wait(
    look: Callable[[], T | None],
    what: str,
    *,
    timeout: float,
    clock: Clock,
    first: float = FIRST_SECONDS,
    longest: float = LONGEST_SECONDS,
    invisible: float = INVISIBLE_SECONDS,
    rng: random.Random | None = None,
) -> T:
    """What `look` returns once it is not None.

    `look` raises for a state that will never become good. "Not found" is waited through for the first `invisible` seconds. Pauses
    grow from `first` to `longest` seconds, each shortened by up to a half at random. AwsError with code "Timeout" after `timeout` seconds.
    """
    chance = rng or random.Random()
    started, pause = clock.now(), first
    while True:
        try:
            found = look()
        except AwsError as error:
            if not error.missing or clock.now() - started > invisible:
                raise
            found = None
        if found is not None:
            return found
        left = timeout - (clock.now() - started)
        if left <= 0:
            raise AwsError(f"{what}: still not so after {timeout:.0f} s", aws_code="Timeout")
        clock.sleep(min(left, pause * (1 - chance.random() / 2)))
        pause = min(longest, pause * GROWTH)
