"""Sizes and durations."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from baker.core.units import DURATION_PATTERN, SIZE_PATTERN, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2 << 30),
        ("512MiB", 512 << 20),
        ("10GB", 10**10),
        ("1.5GiB", 3 << 29),
        ("4kB", 4000),
        ("7B", 7),
        ("4096", 4096),
        (4096, 4096),
    ],
)
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size
    if isinstance(text, str):
        assert re.match(SIZE_PATTERN, text)


@pytest.mark.parametrize("text", ["2 gigs", "2G", "GiB", "", "-1GiB", "0", 0, -5, True, 1.5, None, [], "9" * 50, "1e9", "2gib"])
def test_no_sizes(text: object) -> None:
    with pytest.raises(ValueError, match=r"size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("1d", 86400),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("2d3h4m5s", 183845),
        (90, 90),
        (0.5, 0.5),
        ("90", 90),
        ("0s", 0),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)
    if isinstance(text, str) and not text.isdigit():
        assert re.match(DURATION_PATTERN, text)


@pytest.mark.parametrize(
    "text", ["soon", "", "5 minutes", "1y", "30m1h", "-1s", -1, True, None, "1h 30m", float("nan"), float("inf"), "9" * 30 + "d"]
)
def test_no_durations(text: object) -> None:
    with pytest.raises(ValueError, match=r"time"):
        parse_duration(text)


def test_units_cost_no_pydantic() -> None:
    code = "import sys, baker.core.units; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
