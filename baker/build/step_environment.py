"""What every step is told so that programs which write times, orders or names write the same ones in every build."""

from __future__ import annotations

from collections.abc import Mapping


def repeatable(epoch: int) -> Mapping[str, str]:
    """Environment variables. `epoch`: seconds since 1970, what SOURCE_DATE_EPOCH says (reproducible-builds.org's specification)."""
    date = f"{epoch} +0000"
    return {
        "SOURCE_DATE_EPOCH": str(epoch),
        "GIT_AUTHOR_DATE": date,
        "GIT_COMMITTER_DATE": date,
        "PYTHONHASHSEED": "0",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }
