"""Tracebacks of bugs: kept in a file, for who repairs them."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from baker.errors import BakeError
from baker.paths import ensure


def keep(text: str, state: Path) -> Path | None:
    """Write a traceback, secrets masked already, to a private file; its path, or None where that cannot be."""
    try:
        path = ensure(state / "crashes") / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.txt"
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        path.chmod(0o600)
    except (OSError, BakeError):
        return None
    return path
