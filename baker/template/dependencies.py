"""What loading a template looked at outside of its arguments, so that somebody can tell whether a second look would see the same."""

from __future__ import annotations

import os
import stat
from pathlib import Path

KINDS = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"))


def kind(path: str | Path) -> str:
    """What is at `path`: file, directory or other; "" for nothing, or nothing that may be looked at."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return ""
    return next((name for is_it, name in KINDS if is_it(mode)), "other")


def real(path: str | Path) -> list[str]:
    """Where `path` and its directory really are, symbolic links followed: relative names start there."""
    return [os.path.realpath(path), os.path.realpath(Path(path).parent)]


class Observed:
    """Everything that one load looked at. `doubts`: why that is not all that its outcome depends on."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}  # file -> what was read
        self.real: dict[str, list[str]] = {}  # file -> see real()
        self.kinds: dict[str, str] = {}  # path -> see kind()
        self.environment: dict[str, str | None] = {}  # variable -> value, None where it is not set
        self.doubts: list[str] = []

    def read(self, path: Path, data: bytes) -> None:
        """`data` was read from `path`."""
        if self.contents.setdefault(str(path), data) != data:
            self.doubt(f"{path} changes")
        self.went(path)

    def went(self, path: Path) -> None:
        """`path` was followed, and what it names is relative to its directory."""
        found = real(path)
        if self.real.setdefault(str(path), found) != found:
            self.doubt(f"{path} changes")

    def looked(self, path: Path) -> None:
        """Something depends on whether there is a file or directory `path`, not on its content."""
        found = kind(path)
        if self.kinds.setdefault(str(path), found) != found:
            self.doubt(f"{path} changes")

    def asked(self, name: str, value: str | None) -> None:
        """The environment variable `name` was asked for."""
        self.environment[name] = value

    def doubt(self, why: str) -> None:
        """The outcome depends on something that is not observed."""
        self.doubts.append(why)
