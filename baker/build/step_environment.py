"""The environment of every step. It makes programs write the same times, orders and names in every build."""

from __future__ import annotations

from collections.abc import Mapping


def repeatable(epoch: int) -> Mapping[str, str]:
    """Return the environment variables. `epoch`: the value of SOURCE_DATE_EPOCH (reproducible-builds.org), seconds since 1970."""
    date = f"{epoch} +0000"
    return {
        "SOURCE_DATE_EPOCH": str(epoch),
        "GIT_AUTHOR_DATE": date,
        "GIT_COMMITTER_DATE": date,
        "PYTHONHASHSEED": "0",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }
