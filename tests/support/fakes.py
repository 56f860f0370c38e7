"""Fakes at the project's own seams, for unit tests."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from baker.machines.ssh.communicator import CommandResult, OnOutput


@dataclass
class FakeClock:
    """A clock on which time passes only in `sleep`."""

    time: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.time

    def date(self) -> float:
        return 1_700_000_000.0 + self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


@dataclass(frozen=True)
class Call:
    """A call of `run` of a fake communicator."""

    script: str
    user: str
    env: Mapping[str, str]
    shell: str
    timeout: float | None
    cwd: str | None


Answer = CommandResult | Exception | Callable[[Call], CommandResult]


def ended(exit_code: int = 0, stdout: str = "", stderr: str = "") -> CommandResult:
    """A command that has ended."""
    return CommandResult(exit_code, stdout, stderr, 0.0)


class FakeCommunicator:
    """A guest that answers from a table: the first entry of `answers` whose key is part of the script. A list is used in order.

    Records every call; `files` maps the path of each file that was put to (bytes, mode, owner, group), `trees` a destination to the tar's
    entries.
    """

    ssh_config: Path
    host: str

    def __init__(self, ssh_config: Path | None = None, host: str = "guest") -> None:
        self.ssh_config = ssh_config or Path("/nonexistent/ssh_config")
        self.host = host
        self.answers: dict[str, Answer | list[Answer]] = {}
        self.calls: list[Call] = []
        self.files: dict[str, tuple[bytes, int, str, str]] = {}
        self.trees: dict[str, dict[str, tarfile.TarInfo]] = {}
        self.boot_ids: list[str | Exception] = ["boot-1"]
        self.waits: list[float] = []
        self.disconnects = 0

    def run(
        self,
        script: str,
        *,
        user: str = "root",
        env: Mapping[str, str] | None = None,
        shell: str = "/bin/sh",
        timeout: float | None = None,
        on_output: OnOutput | None = None,
        cwd: str | None = None,
    ) -> CommandResult:
        call = Call(script, user, dict(env or {}), shell, timeout, cwd)
        self.calls.append(call)
        answer = next((self._next(key) for key in self.answers if key in script), ended())
        if isinstance(answer, Exception):
            raise answer
        result = answer if isinstance(answer, CommandResult) else answer(call)
        for line in result.stdout.splitlines() if on_output else ():
            on_output(line, "stdout")  # type: ignore[misc]
        for line in result.stderr.splitlines() if on_output else ():
            on_output(line, "stderr")  # type: ignore[misc]
        return result

    def _next(self, key: str) -> Any:
        answer = self.answers[key]
        if isinstance(answer, list):
            return answer.pop(0) if len(answer) > 1 else answer[0]
        return answer

    def put(self, data: bytes, destination: str, *, mode: int = 0o644, owner: str = "root", group: str = "root") -> None:
        self.files[destination] = (data, mode, owner, group)

    def put_tree(self, tar: Path, destination: str) -> None:
        with tarfile.open(fileobj=io.BytesIO(tar.read_bytes())) as archive:
            self.trees[destination] = {entry.name: entry for entry in archive.getmembers()}

    def get(self, source: str, destination: Path) -> None:
        destination.write_bytes(self.files[source][0])

    def disconnect(self) -> None:
        self.disconnects += 1

    def wait(self, timeout: float) -> None:
        self.waits.append(timeout)

    def boot_id(self) -> str:
        found = self.boot_ids.pop(0) if len(self.boot_ids) > 1 else self.boot_ids[0]
        if isinstance(found, Exception):
            raise found
        return found
