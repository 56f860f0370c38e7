"""Carries a step's operations out: on the machine, or on this host against the machine.

`execute` is the only way in. Whatever goes wrong comes out as a StepError that names the step, where it was written, its exit code
and its last output lines, with secrets masked.
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
LONGEST_PAUSE = 30.0  # seconds between two tries; the pauses double from 1 s on
RETURN_SECONDS = 300.0  # for a machine that reboots in a step without a timeout
GRACE_SECONDS = 15.0  # for a reboot to begin after the command that asked for it has ended
LONGEST_OUTPUT = 1 << 20  # characters of a host command's output that are kept to be matched

# Tells whether the guest is on its way down. Without systemd nobody can say: "unknown".
GOING_DOWN = "if [ -d /run/systemd/system ]; then systemctl is-system-running || true; else echo unknown; fi"


@dataclass(frozen=True)
class StepResult:
    """How a step went. `exit_code` is that of its last command (None: it ran none); `tail` its last output lines, masked."""

    exit_code: int | None
    attempts: int
    seconds: float
    tail: tuple[str, ...] = ()
    brought: tuple[AnsibleContent, ...] = ()  # roles and collections


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
    """Run `step` to its end, again after a failure as often as its `retries` say. Raises StepError.

    `step.timeout` limits the whole step with all its tries and pauses. `env` is handed to every command; what stands in it must
    be in the step's key too. Files on this host are written below `scratch` only and removed.
    """
    return _Execution(step, communicator, report, scratch, variables or {}, env or {}, mask, clock).run()


class _Failed(Exception):
    """One try of the step failed."""

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
    brought: list[AnsibleContent] = field(default_factory=list)

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
                return StepResult(self.exit_code, attempts, self.clock.now() - self.started, self._tail(), tuple(self.brought))

    def _pause(self, failure: _Failed, attempts: int) -> None:
        pause = min(2.0 ** (attempts - 1), LONGEST_PAUSE)
        left = self._left()
        if left is not None and left <= pause:
            raise self._error(failure, attempts)
        self.report.warn(self.mask(f"{self.step.name}: try {attempts} of {self.step.retries + 1} failed ({failure}); again in {pause:g} s"))
        self.clock.sleep(pause)

    def _attempt(self) -> None:
        """All operations once."""
        files = self.scratch / f"step-{id(self):x}"
        self.brought.clear()
        try:
            if not self.connected:
                self._reconnect()
            files.mkdir(parents=True, mode=0o700)
            for operation in self._operations():
                self._left()
                self._carry_out(operation, files)
        except GuestTimeout as error:
            raise _Failed(self._late(), final=True) from error
        except Disconnected as error:
            self.connected = False
            words = f"the connection to the machine was lost ({error})" if str(error) else "the connection to the machine was lost"
            raise _Failed(words, hint="a step that reboots the machine needs expect_disconnect: true") from error
        except process.CommandTimeout as error:
            raise _Failed(self._late(), final=True) from error
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

    def _carry_out(self, operation: Operation, files: Path) -> None:
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
        """Whether the guest is going down or has been: a command that asks for a reboot ends before the reboot begins."""
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
        """Wait for the machine to answer again; with `boot_id`, for another boot than that one."""
        until = self.clock.now() + min(self._left() or RETURN_SECONDS, RETURN_SECONDS)
        self.connected = False
        while not self.connected:
            self.communicator.disconnect()
            left = until - self.clock.now()
            if left <= 0:
                raise _Failed("the machine did not come back after it was rebooted", final=True)
            self.communicator.wait(left)
            try:
                self.connected = not boot_id or self.communicator.boot_id() != boot_id
            except Disconnected:
                continue
            if not self.connected:
                self.clock.sleep(0.5)  # it still answers: on its way down

    def _login_group(self, owner: str) -> str:
        """The login group of a user of the guest: what `chown owner:` would give."""
        if owner in ("root", "0"):
            return "root"
        result = self.communicator.run(f"id -gn -- {owner}", timeout=self._left())
        if result.exit_code != 0:
            raise _Failed(f"the machine has no user {owner}", result.exit_code)
        return result.stdout.strip()

    def _tree(self, operation: PutTree, files: Path) -> None:
        path = files / "tree.tar"
        group = operation.group or self._login_group(operation.owner)
        # a directory that the guest has keeps its owner and mode: nobody means to change those of / or /tmp
        there = self.communicator.run(f"test -d {shlex.quote(operation.destination)}", timeout=self._left()).exit_code == 0
        mtime = int(self.env["SOURCE_DATE_EPOCH"]) if "SOURCE_DATE_EPOCH" in self.env else None
        try:
            tar.write(path, operation, group=group, mtime=mtime, top=not there)
        except OSError as error:
            raise _Failed(f"cannot pack {operation.source}: {error.strerror or error}", final=True) from error
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
        heard = _Heard()

        def hear(line: str) -> None:
            heard.add(line)
            self._output(line, "stdout")

        result = process.run(
            [_fill(word, names) for word in operation.argv],
            check=False,
            env={name: _fill(value, names) for name, value in operation.env.items()},
            cwd=operation.cwd,
            timeout=self._left(),
            on_line=hear,
        )
        self.exit_code = result.returncode
        program = Path(operation.argv[0]).name
        if result.returncode != 0:
            raise _Failed(f"{program} ended with exit code {result.returncode}", result.returncode)
        _check_output(operation, heard.text, program)
        if operation.galaxy:
            self.brought += galaxy.installed(files, operation.galaxy)

    def _placeholders(self, operation: OnHost, files: Path) -> dict[str, str]:
        names = {"ssh_config": str(self.communicator.ssh_config), "host": self.communicator.host, "files": str(files)}
        if any("{user}" in value for value in (*operation.argv, *operation.env.values())):
            names["user"] = login_user(self.communicator.ssh_config, self.communicator.host)
        return names

    # -- reporting --

    def _output(self, line: str, stream: Literal["stdout", "stderr"]) -> None:
        text = line.rstrip("\r\n")  # with its secrets: the sink behind the report masks them, by the lines around it too
        self.lines.append(text)
        self.report.output(text, stream=stream, step=self.step.name)

    def _tail(self) -> tuple[str, ...]:
        """The last lines that the step printed, masked together."""
        return tuple(self.mask("\n".join(self.lines)).split("\n")) if self.lines else ()

    def _left(self) -> float | None:
        """Seconds until the step's time is over, None without a limit; an error when it is over."""
        if self.step.timeout is None:
            return None
        left = self.step.timeout - (self.clock.now() - self.started)
        if left <= 0:
            raise _Failed(self._late(), final=True)
        return left

    def _late(self) -> str:
        return f"not done within its timeout of {self.step.timeout:g} s" if self.step.timeout is not None else "timed out"

    def _error(self, failure: _Failed, attempts: int) -> StepError:
        tries = f" after {attempts} tries" if attempts > 1 else ""
        return StepError(
            self.mask(f"step {self.step.name} ({self.step.origin}) failed{tries}: {failure}"),
            step=self.step.name,
            exit_code_of_step=failure.exit_code,
            output=self._tail(),
            hint=self.mask(failure.hint),
            code=failure.code,
        )


class _Heard:
    """The end of a command's output, up to LONGEST_OUTPUT characters."""

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
    """Hold what a command printed against what its operation expects and refuses."""
    found = [_what(match) for match in re.finditer(operation.refuse, output)] if operation.refuse else []
    if found or (operation.expect and not re.search(operation.expect, output)):
        complaint = operation.complaint or f"{program} printed what was not expected: {{found}}"
        raise _Failed(complaint.replace("{found}", ", ".join(found) or "something"))


def _what(match: re.Match[str]) -> str:
    return next((group for group in match.groups() if group), match.group())
