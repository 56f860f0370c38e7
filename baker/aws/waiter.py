"""Wait for a state in AWS, with a deadline, back-off and jitter.

botocore's own waiters poll at a fixed interval, count polls instead of having a deadline, and fail when a resource that was just created is
not visible yet.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from baker.aws.errors import AwsError
from baker.core.clock import Clock

T = TypeVar("T")
FIRST_SECONDS, LONGEST_SECONDS, GROWTH = 0.5, 15.0, 1.5
INVISIBLE_SECONDS = 60.0  # how long a resource that was just created may be reported as missing


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
    """Call `look` until it returns something other than None, and return that.

    `look` raises an error for a state that will never become the right one. An AwsError for a missing resource is ignored for the first
    `invisible` seconds. Pauses grow from `first` to `longest` seconds, each shortened at random by up to a half. Raises AwsError with the
    `aws_code` "Timeout" after `timeout` seconds; `what` describes the wait in the message ("the image ami-1 is not available").
    """
    jitter = rng or random.Random()
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
            raise AwsError(
                f"timed out after {timeout:.0f} s: {what}",
                aws_code="Timeout",
                hint="try again later; health.aws.amazon.com shows disturbances of AWS",
                code="aws.timeout",
            )
        clock.sleep(min(left, pause * (1 - jitter.random() / 2)))
        pause = min(longest, pause * GROWTH)
