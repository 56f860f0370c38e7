"""SOURCE_DATE_EPOCH (the specification of reproducible-builds.org): the time that a build uses wherever an image records a time.

It is the first of these that exists: `epoch` of the lock file beside the template; SOURCE_DATE_EPOCH in the environment; for a
template with `reproducible`, the time of the last commit that changed its file; a fixed time. So two builds of a template have the
same time unless the environment, a commit or a new lock file changes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FIXED = 1577836800  # 2020-01-01T00:00:00Z
VARIABLE = "SOURCE_DATE_EPOCH"
LOCKED = re.compile(rb"^epoch: (\d{1,12})\s*$", re.MULTILINE)
HEAD = 4096  # bytes at the start of a lock file, which have its first keys


@dataclass(frozen=True)
class DateEpoch:
    """The time, determined at the first access. `given`: the value in the environment; `committed`: whether git is asked."""

    path: Path | None = None
    given: str = ""
    committed: bool = False

    @property
    def seconds(self) -> int:
        return self._found[0]

    @property
    def origin(self) -> str:
        """The origin of the time: "lock", "environment", "commit" or "fixed"."""
        return self._found[1]

    @cached_property
    def _found(self) -> tuple[int, str]:
        locked = _locked(self.path) if self.path else None
        if locked is not None:
            return locked, "lock"
        if self.given.isascii() and self.given.isdigit():
            return int(self.given), "environment"
        commit = _commit(self.path) if self.path and self.committed else None
        return (commit, "commit") if commit else (FIXED, "fixed")


def lock_path(template: Path) -> Path:
    """The path of a template's lock file: web.lock.yaml beside web.yaml."""
    return template.with_name(f"{template.stem}.lock.yaml")


def _locked(template: Path) -> int | None:
    try:
        with lock_path(template).open("rb") as file:
            match = LOCKED.search(file.read(HEAD))
    except OSError:
        return None
    return int(match[1]) if match else None


def _commit(template: Path) -> int | None:
    """The time of the last commit of the file (committer date); None outside a repository and for a file that is not tracked."""
    from baker.core.errors import BakeError
    from baker.core.process import run
    from baker.template.git import project_root

    if project_root(template.parent) is None:
        return None
    argv: list[str | Path] = ["git", "--no-optional-locks", "-C", template.parent, "log", "-1", "--format=%ct", "--", template.name]
    try:
        text = run(argv, timeout=60, what="git log").stdout.strip()
    except BakeError:
        return None
    return int(text) if text.isdigit() else None
