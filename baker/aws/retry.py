"""Asking again: throttling, 5xx and lost connections, with exponential back-off and jitter, on our own clock.

botocore's "standard" mode is not used for it: it takes InsufficientInstanceCapacity, which EC2 answers with HTTP 500, for something
that goes away by asking again, and it sleeps on a clock that no test can wind. What is asked again must be idempotent: whoever creates
something hands a client token, or a name that tells it from everything else.
"""

from __future__ import annotations

import random
from typing import Any

from baker.core.clock import Clock

ATTEMPTS = 8
FIRST_SECONDS, LONGEST_SECONDS = 1.0, 20.0
THROTTLED = frozenset(
    {
        "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottledException", "RequestThrottled",
        "TooManyRequestsException", "RequestLimitExceeded", "BandwidthLimitExceeded", "LimitExceededException", "SlowDown",
        "PriorRequestNotComplete", "EC2ThrottledException", "ProvisionedThroughputExceededException", "TransactionInProgressException",
    }
)  # fmt: skip
TRANSIENT = frozenset(
    {"InternalError", "InternalFailure", "ServiceUnavailable", "Unavailable", "RequestTimeout", "RequestTimeoutException"}
)
NEVER = frozenset({"InsufficientInstanceCapacity", "InsufficientCapacity", "InsufficientHostCapacity", "InsufficientAddressCapacity"})
STATUSES = frozenset({500, 502, 503, 504})


class Retry:
    """A handler of botocore's event needs-retry (https://botocore.amazonaws.com/v1/documentation/api/latest/topics/events.html)."""

    def __init__(self, clock: Clock, attempts: int = ATTEMPTS, rng: random.Random | None = None) -> None:
        self._clock, self._attempts, self._rng = clock, attempts, rng or random.Random()

    def __call__(self, *, response: Any, attempts: int, caught_exception: Exception | None, **_: Any) -> int | None:
        """0, after a pause, to ask again; None to let the answer stand."""
        if attempts >= self._attempts or not passes(response, caught_exception):
            return None
        self._clock.sleep(min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** (attempts - 1)) * self._rng.random())
        return 0


def passes(response: Any, caught: Exception | None) -> bool:
    """Whether what went wrong may be right the next time. `response`: (HTTP response, parsed answer) or None."""
    from botocore import exceptions as boto

    if caught is not None:
        return isinstance(caught, boto.HTTPClientError | boto.ConnectionError)
    if response is None:
        return False
    code = str(response[1].get("Error", {}).get("Code", ""))
    if code in NEVER:
        return False
    return code in THROTTLED or code in TRANSIENT or response[0].status_code in STATUSES
