"""Runs the operations of a step: on the machine, or on this host with the machine as their target.

`execute` is the only entry point. Every failure is raised as a StepError with the step's name, its place in the template, its exit code
and its last lines of output, with secrets masked.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from baker.core import process
from baker.core.clock import Clock
from baker.core.errors import BakeError, HostError, StepError
from baker.core.events import Reporter
from baker.core.model import AnsibleContent
from baker.machines.ssh.communicator import CommandResult, Communicator, Disconnected, GuestTimeout
from baker.machines.ssh.config import login_user
from baker.provision import galaxy, registry, tar
from baker.provision.base import OnHost, Operation, Put, PutTree, Run, StepContext
from baker.template.model import Step

TAIL_LINES = 20
LONGEST_PAUSE = 30.0  # seconds between two attempts; the pauses double from 1 s on
RETURN_SECONDS = 300.0  # timeout of a reboot in a step without a timeout
GRACE_SECONDS = 15.0  # timeout for a reboot to begin after the command that requested it has ended
LONGEST_OUTPUT = 1 << 20  # characters of a host command's output that are kept for matching

# Prints "stopping" while the guest shuts down; "unknown" in a guest without systemd, where that cannot be determined.
GOING_DOWN = "if [ -d /run/systemd/system ]; then systemctl is-system-running || true; else echo unknown; fi"


@dataclass(frozen=True)
class StepResult:
    """The result of a step. `exit_code`: of its last command, None if it ran none; `tail`: its last lines of output, masked."""

    exit_code: int | None
    attempts: int
    seconds: float
    tail: tuple[str, ...] = ()
    ansible_content: tuple[AnsibleContent, ...] = ()  # roles and collections that it installed


def execute(
    step: Step,
    communicator: Communicator,
    report: Reporter,
    *,
    scratch: Path,
    variables: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    mask: Callable[[str], str] = str,
    clock: Clock = Clock(),  # noqa: B008 - frozen
) -> StepResult:
    """Run `step`. After a failure run it again, at most `retries` times. Raises StepError.

    `step.timeout` limits the whole step with all its attempts and pauses. `env` is the environment of every command; its content must
    be part of the step's key. Files on this host are written below `scratch` only, and removed.
    """
    return _Execution(step, communicator, report, scratch, variables or {}, env or {}, mask, clock).run()


class _Failed(Exception):
    """One attempt of the step failed."""

    def __init__(self, message: str, exit_code: int | None = None, hint: str = "", *, code: str = "", final: bool = False) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.hint = hint
        self.code = code  # of the error behind it; "": that of StepError
        self.final = final  # trying again makes no sense


@dataclass
class _Execution:
    step: Step
    communicator: Communicator
    report: Reporter
    scratch: Path
    variables: Mapping[str, Any]
    env: Mapping[str, str]
    mask: Callable[[str], str]
    clock: Clock
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    exit_code: int | None = None
    started: float = 0.0
    connected: bool = True
    ansible_content: list[AnsibleContent] = field(default_factory=list)

    def run(self) -> StepResult:
        self.started = self.clock.now()
        if self.step.pause_before:
            self.clock.sleep(self.step.pause_before)
        attempts = 0
        while True:
            attempts += 1
            try:
                self._attempt()
            except _Failed as failure:
                if failure.final or attempts > self.step.retries:
                    raise self._error(failure, attempts) from failure.__cause__
                self._pause(failure, attempts)
            else:
                return StepResult(self.exit_code, attempts, self.clock.now() - self.started, self._tail(), tuple(self.ansible_content))

    def _pause(self, failure: _Failed, attempts: int) -> None:
        pause = min(2.0 ** (attempts - 1), LONGEST_PAUSE)
        left = self._left()
        if left is not None and left <= pause:
            raise self._error(failure, attempts)
        self.report.warn(
            self.mask(
                f"{self.step.name}: attempt {attempts} of {self.step.retries + 1} failed ({failure}); the next one begins in {pause:g} s"
            )
        )
        self.clock.sleep(pause)

    def _attempt(self) -> None:
        """Run all operations once."""
        files = self.scratch / f"step-{id(self):x}"
        self.ansible_content.clear()
        try:
            if not self.connected:
                self._reconnect()
            files.mkdir(parents=True, mode=0o700)
            for operation in self._operations():
                self._left()
                self._run_operation(operation, files)
        except (GuestTimeout, process.CommandTimeout) as error:
            raise self._timeout_failure() from error
        except Disconnected as error:
            self.connected = False
            words = f"the connection to the machine was lost ({error})" if str(error) else "the connection to the machine was lost"
            raise _Failed(
                words, hint="a step that reboots the machine needs expect_disconnect: true", code="step.connection-lost"
            ) from error
        except HostError as error:
            raise _Failed(error.message, hint=error.hint, code=error.code, final=True) from error
        except BakeError as error:
            raise _Failed(error.message, hint=error.hint, code=error.code) from error
        finally:
            shutil.rmtree(files, ignore_errors=True)

    def _operations(self) -> Iterable[Operation]:
        context = StepContext(
            base_dir=self.step.base_dir,
            step=self.step.name,
            variables=self.variables,
            env={"DEBIAN_FRONTEND": "noninteractive", **self.env},
        )
        return registry.get(self.step.kind).operations(self.step.config, context)

    def _run_operation(self, operation: Operation, files: Path) -> None:
        match operation:
            case Run():
                self._guest(operation)
            case Put():
                group = operation.group or self._login_group(operation.owner)
                self.communicator.put(operation.data, operation.destination, mode=operation.mode, owner=operation.owner, group=group)
            case PutTree():
                self._tree(operation, files)
            case OnHost():
                self._host(operation, files)

    # -- in the guest --

    def _guest(self, operation: Run) -> None:
        boot_id = self.communicator.boot_id() if operation.expect_disconnect else ""
        try:
            result = self._run(operation)
        except Disconnected:
            if not operation.expect_disconnect:
                raise
            self.exit_code = None
            self._reconnect(boot_id)
            return
        self.exit_code = result.exit_code
        if operation.expect_disconnect and self._rebooting(boot_id):
            self._reconnect(boot_id)
        elif result.exit_code not in operation.expected_exit_codes:
            expected = ", ".join(str(code) for code in sorted(operation.expected_exit_codes))
            raise _Failed(f"exit code {result.exit_code}" + ("" if expected == "0" else f" (expected {expected})"), result.exit_code)

    def _run(self, operation: Run) -> CommandResult:
        return self.communicator.run(
            operation.script,
            user=operation.user,
            env={"DEBIAN_FRONTEND": "noninteractive", **self.env, **operation.env},
            shell=operation.shell,
            timeout=self._left(),
            on_output=self._output,
            cwd=operation.cwd,
        )

    def _rebooting(self, boot_id: str) -> bool:
        """Whether the guest is shutting down or has rebooted. A command that requests a reboot ends before the reboot begins."""
        until = self.clock.now() + GRACE_SECONDS
        while True:
            try:
                state = self.communicator.run(GOING_DOWN, timeout=GRACE_SECONDS).stdout.strip()
                if state == "stopping" or self.communicator.boot_id() != boot_id:
                    return True
            except (Disconnected, GuestTimeout):
                return True
            if state != "unknown" or self.clock.now() >= until:
                return False
            self.clock.sleep(0.5)

    def _reconnect(self, boot_id: str = "") -> None:
        """Wait until the machine answers again; with `boot_id`, until it has booted again."""
        until = self.clock.now() + min(self._left() or RETURN_SECONDS, RETURN_SECONDS)
        self.connected = False
        while not self.connected:
            self.communicator.disconnect()
            left = until - self.clock.now()
            if left <= 0:
                raise _Failed("timed out waiting for the machine to answer after its reboot", final=True, code="step.reboot-timeout")
            self.communicator.wait(left)
            try:
                self.connected = not boot_id or self.communicator.boot_id() != boot_id
            except Disconnected:
                continue
            if not self.connected:
                self.clock.sleep(0.5)  # it still answers, because it is shutting down

    def _login_group(self, owner: str) -> str:
        """The login group of a user of the guest, as in `chown owner:`."""
        if owner in ("root", "0"):
            return "root"
        result = self.communicator.run(f"id -gn -- {owner}", timeout=self._left())
        if result.exit_code != 0:
            raise _Failed(f"the machine has no user {owner}", result.exit_code, code="step.no-such-user")
        return result.stdout.strip()

    def _tree(self, operation: PutTree, files: Path) -> None:
        path = files / "tree.tar"
        group = operation.group or self._login_group(operation.owner)
        # an existing directory keeps its owner and mode: those of / or /tmp must not change
        there = self.communicator.run(f"test -d {shlex.quote(operation.destination)}", timeout=self._left()).exit_code == 0
        mtime = int(self.env["SOURCE_DATE_EPOCH"]) if "SOURCE_DATE_EPOCH" in self.env else None
        try:
            tar.write(path, operation, group=group, mtime=mtime, top=not there)
        except OSError as error:
            raise _Failed(f"cannot pack {operation.source}: {error.strerror or error}", final=True, code="step.cannot-pack") from error
        self.communicator.put_tree(path, operation.destination)
        path.unlink()

    # -- on this host --

    def _host(self, operation: OnHost, files: Path) -> None:
        for name, content in operation.files.items():
            target = files / name
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            target.touch(mode=0o600)
            target.write_text(content)
        names = self._placeholders(operation, files)
        output = _OutputTail()

        def on_line(line: str) -> None:
            output.add(line)
            self._output(line, "stdout")

        result = process.run(
            [_fill(word, names) for word in operation.argv],
            check=False,
            env={name: _fill(value, names) for name, value in operation.env.items()},
            cwd=operation.cwd,
            timeout=self._left(),
            on_line=on_line,
        )
        self.exit_code = result.returncode
        program = Path(operation.argv[0]).name
        if result.returncode != 0:
            raise _Failed(f"{program} failed with exit code {result.returncode}", result.returncode)
        _check_output(operation, output.text, program)
        if operation.galaxy:
            self.ansible_content += galaxy.installed(files, operation.galaxy)

    def _placeholders(self, operation: OnHost, files: Path) -> dict[str, str]:
        names = {"ssh_config": str(self.communicator.ssh_config), "host": self.communicator.host, "files": str(files)}
        if any("{user}" in value for value in (*operation.argv, *operation.env.values())):
            names["user"] = login_user(self.communicator.ssh_config, self.communicator.host)
        return names

    # -- reporting --

    def _output(self, line: str, stream: Literal["stdout", "stderr"]) -> None:
        text = line.rstrip("\r\n")  # not masked here: the sink behind the report masks secrets, including those that span lines
        self.lines.append(text)
        self.report.output(text, stream=stream, step=self.step.name)

    def _tail(self) -> tuple[str, ...]:
        """The last lines of the step's output, masked as one text because a secret may span lines."""
        return tuple(self.mask("\n".join(self.lines)).split("\n")) if self.lines else ()

    def _left(self) -> float | None:
        """Seconds until the step's timeout; None without one. _Failed when it has passed."""
        if self.step.timeout is None:
            return None
        left = self.step.timeout - (self.clock.now() - self.started)
        if left <= 0:
            raise self._timeout_failure()
        return left

    def _timeout_failure(self) -> _Failed:
        message = f"timed out after {self.step.timeout:g} s" if self.step.timeout is not None else "timed out"
        return _Failed(message, final=True, code="step.timeout")

    def _error(self, failure: _Failed, attempts: int) -> StepError:
        after = f" after {attempts} attempts" if attempts > 1 else ""
        return StepError(
            self.mask(f"step {self.step.name} ({self.step.origin}) failed{after}: {failure}"),
            step=self.step.name,
            exit_code_of_step=failure.exit_code,
            output=self._tail(),
            hint=self.mask(failure.hint),
            code=failure.code,
        )


class _OutputTail:
    """The last LONGEST_OUTPUT characters of a command's output."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque()
        self._size = 0

    def add(self, line: str) -> None:
        self._lines.append(line)
        self._size += len(line) + 1
        while self._size > LONGEST_OUTPUT:
            self._size -= len(self._lines.popleft()) + 1

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)


def _fill(text: str, names: Mapping[str, str]) -> str:
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _check_output(operation: OnHost, output: str, program: str) -> None:
    """Check the output of a command for what its operation expects and refuses."""
    found = [_what(match) for match in re.finditer(operation.refuse, output)] if operation.refuse else []
    if found or (operation.expect and not re.search(operation.expect, output)):
        complaint = operation.complaint or f"{program} printed unexpected output: {{found}}"
        raise _Failed(complaint.replace("{found}", ", ".join(found) or "something"))


def _what(match: re.Match[str]) -> str:
    return next((group for group in match.groups() if group), match.group())
