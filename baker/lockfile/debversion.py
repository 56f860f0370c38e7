"""Compare two Debian versions like `dpkg --compare-versions` (Debian Policy 5.6.12)."""

from __future__ import annotations

import re

_RUNS = re.compile(r"(\D*)(\d*)")


def compare(one: str, other: str) -> int:
    """-1, 0 or 1: whether `one` is older than, the same as, or newer than `other`."""
    for mine, theirs in zip(_split(one), _split(other), strict=True):
        order = _part(mine, theirs)
        if order:
            return order
    return 0


def _split(version: str) -> tuple[str, str, str]:
    """Epoch, upstream version and revision; a missing epoch or revision counts as 0."""
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, dash, revision = rest.rpartition("-")
    return epoch, upstream if dash else rest, revision if dash else "0"


def _part(one: str, other: str) -> int:
    while one or other:
        mine, theirs = _RUNS.match(one), _RUNS.match(other)
        assert mine and theirs  # both parts of the pattern may be empty
        letters = [[_weight(c) for c in match[1]] + [0] for match in (mine, theirs)]
        numbers = [int(match[2] or 0) for match in (mine, theirs)]
        if letters[0] != letters[1]:
            return -1 if letters[0] < letters[1] else 1
        if numbers[0] != numbers[1]:
            return -1 if numbers[0] < numbers[1] else 1
        one, other = one[mine.end() :], other[theirs.end() :]
    return 0


def _weight(character: str) -> int:
    """The sort weight of a character: a tilde sorts before the end of a part, letters before other characters."""
    if character == "~":
        return -1
    return ord(character) + (0 if character.isalpha() else 256)
