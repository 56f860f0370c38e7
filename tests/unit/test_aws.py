"""Errors of AWS in bake's words, asking again, and waiting."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, NoCredentialsError, NoRegionError, ParamValidationError

from baker.aws.errors import AwsError, UnreachableError, translated
from baker.aws.retry import Retry, is_transient
from baker.aws.waiter import wait
from baker.core.clock import Clock
from baker.core.errors import BakeError, HostError
from tests.support.fakes import FakeClock


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "so it is"}}, "RunInstances")


def clocked() -> tuple[FakeClock, Clock]:
    fake = FakeClock()
    return fake, Clock(fake.now, fake.date, fake.sleep)


@pytest.mark.parametrize(
    ("error", "kind", "code", "fact"),
    [
        (refusal("ExpiredToken"), UnreachableError, "aws.credentials-rejected", "ExpiredToken"),
        (refusal("UnauthorizedOperation"), HostError, "aws.forbidden", "RunInstances"),
        (refusal("InvalidAMIID.NotFound"), AwsError, "aws.refused", r"so it is \(InvalidAMIID.NotFound of RunInstances\)"),
        (NoCredentialsError(), UnreachableError, "aws.no-credentials", "a thing"),
        (NoRegionError(), HostError, "aws.no-region", "region"),
        (ParamValidationError(report="x"), AwsError, "aws.refused", "x"),
        (ConnectTimeoutError(endpoint_url="http://x"), UnreachableError, "aws.unreachable", "http://x"),
    ],
)
def test_errors_come_out_in_bakes_words(error: Exception, kind: type[BakeError], code: str, fact: str) -> None:
    with pytest.raises(kind, match=fact) as failure, translated("a thing"):
        raise error
    assert failure.value.code == code


@pytest.mark.parametrize(
    ("code", "status", "again"),
    [
        ("RequestLimitExceeded", 503, True),
        ("InternalError", 500, True),
        ("", 502, True),
        ("InsufficientInstanceCapacity", 500, False),
        ("InvalidParameterValue", 400, False),
    ],
)
def test_what_is_asked_again(code: str, status: int, again: bool) -> None:
    answer: Any = (SimpleNamespace(status_code=status), {"Error": {"Code": code}})
    assert is_transient(answer, None) is again
    fake, clock = clocked()
    assert Retry(clock)(response=answer, attempts=1, caught_exception=None) == (0 if again else None)
    assert bool(fake.slept) is again


def test_asking_again_has_an_end_and_longer_pauses() -> None:
    fake, clock = clocked()
    retry = Retry(clock, attempts=8, rng=random.Random(1))
    lost = ConnectTimeoutError(endpoint_url="http://x")
    answers = [retry(response=None, attempts=number, caught_exception=lost) for number in range(1, 9)]
    assert answers == [0] * 7 + [None]
    assert max(fake.slept) <= 20.0 and fake.slept[-1] > fake.slept[0]


def looks(*found: Any) -> Callable[[], Any]:
    """A look that finds these one after the other, the last for ever."""
    left = list(found)

    def look() -> Any:
        value = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(value, Exception):
            raise value
        return value

    return look


def test_waiting_is_patient_with_what_is_not_visible_yet() -> None:
    missing = AwsError("no", aws_code="InvalidInstanceID.NotFound")
    assert wait(looks(missing, None, "here"), "it", timeout=60, clock=clocked()[1]) == "here"
    with pytest.raises(AwsError, match="no"):
        wait(looks(missing), "it", timeout=600, clock=clocked()[1], invisible=30)


def test_waiting_ends_at_the_deadline_and_at_once_for_what_has_failed() -> None:
    fake, clock = clocked()
    with pytest.raises(AwsError, match=r"90 s.* it") as failure:
        wait(looks(None), "it", timeout=90, clock=clock)
    assert (failure.value.code, failure.value.aws_code) == ("aws.timeout", "Timeout")
    assert 89.9 < sum(fake.slept) < 90.1 and max(fake.slept) <= 15
    with pytest.raises(AwsError, match="failed"):
        wait(looks(AwsError("failed", aws_code="ImageFailed")), "it", timeout=90, clock=clock)
