"""Retry requests after throttling, 5xx answers and lost connections, with exponential back-off and jitter, on bake's own clock.

botocore's "standard" mode is not used, for two reasons: it retries InsufficientInstanceCapacity, which EC2 answers with HTTP 500 although a
retry does not help, and it sleeps on a clock that tests cannot control. Requests that are retried must be idempotent: a request that
creates something passes a client token or a unique name.
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
        """Return 0 after a pause to make botocore retry, or None to accept the answer."""
        if attempts >= self._attempts or not is_transient(response, caught_exception):
            return None
        self._clock.sleep(min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** (attempts - 1)) * self._rng.random())
        return 0


def is_transient(response: Any, caught: Exception | None) -> bool:
    """Whether a retry may succeed. `response` is (HTTP response, parsed answer) or None."""
    from botocore import exceptions as boto

    if caught is not None:
        return isinstance(caught, boto.HTTPClientError | boto.ConnectionError)
    if response is None:
        return False
    code = str(response[1].get("Error", {}).get("Code", ""))
    if code in NEVER:
        return False
    return code in THROTTLED or code in TRANSIENT or response[0].status_code in STATUSES
