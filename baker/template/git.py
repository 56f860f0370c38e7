"""The state of the git repository around a template. git runs at most once, at the first access to a fact."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True)
class _Status:
    commit: str = ""
    branch: str = ""
    dirty: bool = False
    error: str = ""


@dataclass(frozen=True)
class GitFacts:
    """Facts about the repository around `directory`; all are empty where there is none. The first access may run git."""

    directory: Path | None = None

    @property
    def commit(self) -> str:
        """40 hex digits (64 in a SHA-256 repository); "" outside a repository or before the first commit."""
        return self._status.commit

    @property
    def short(self) -> str:
        return self._status.commit[:8]

    @property
    def branch(self) -> str:
        """The current branch; "" when no branch is checked out."""
        return self._status.branch

    @property
    def dirty(self) -> bool:
        return self._status.dirty

    @property
    def error(self) -> str:
        """Why there are no facts; "" if there are."""
        return self._status.error

    @cached_property
    def _status(self) -> _Status:
        if self.directory is None or project_root(self.directory) is None:
            return _Status(error="the template is not inside a git repository")
        from baker.core.errors import BakeError
        from baker.core.process import run

        argv: list[str | Path] = ["git", "--no-optional-locks", "-C", self.directory, "status", "--porcelain=v2", "--branch"]
        try:
            output = run(argv, timeout=60, what="git status").stdout
        except BakeError as error:
            return _Status(error=f"git failed: {error.message.splitlines()[-1]}")
        return _read(output)


def project_root(directory: Path) -> Path | None:
    """The nearest directory at or above `directory` that is the root of a git work tree."""
    return next((each for each in (directory, *directory.parents) if (each / ".git").exists()), None)


def _read(output: str) -> _Status:
    """Parse git-status(1), porcelain format version 2: `# branch.oid ID`, `# branch.head NAME`, then one line per change."""
    lines = output.splitlines()
    headers = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch.") and " " in line[2:])
    commit, branch = headers.get("branch.oid", ""), headers.get("branch.head", "")
    return _Status(
        commit="" if commit == "(initial)" else commit,
        branch="" if branch == "(detached)" else branch,
        dirty=any(not line.startswith("#") for line in lines),
    )
