"""Errors that bake expects, as a tree of exceptions. Only the command line prints them and exits.

    BakeError                    any expected error; str(error) is one or more plain sentences
    |-- UsageError               2  the command line or the API was used wrongly
    |-- TemplateError            2  the template, or a file that it names, has problems; all of them, with places
    |-- BuildError               3  the build ran and failed
    |   |-- SourceError          3  the source image is not available
    |   |-- BootError            3  the machine did not boot or did not answer; has the console's last lines
    |   `-- StepError            3  a provisioning step failed; has the step, its exit code and its last output
    |-- VerifyError              4  the captured image failed its tests
    |-- NotFoundError            5  no such image, build, layer
    |-- HostError                6  this host lacks something: a tool, a right, space
    |   `-- LayerError           6  a layer cannot be restored on this host
    |-- BusyError                7  another process uses the resource
    `-- LockError                8  a build differs from its lock file, or the lock file is missing or unreadable

The number is the exit code of a process that ends with the error. 0 is success, 1 an internal error (a bug), 130 and 143 an interrupt
(SIGINT, SIGTERM).

Every error also has a `code`, `AREA.WHAT` in lower case with hyphens, such as `machine.ssh-timeout`. Codes are stable: programs
and tests match them, while messages may change. Each type has a default code; a `raise` may give a more exact one.
docs/errors.md lists them all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, order=True)
class Problem:
    """One problem in a file, at the place where the user typed it. `line` and `column` count from 1; line 0 is the whole file."""

    file: str
    line: int
    column: int
    message: str
    hint: str = ""
    snippet: str = ""
    code: str = field(kw_only=True)

    def __str__(self) -> str:
        place = self.file + (f":{self.line}:{self.column}" if self.line else "")
        text = f"{place}: {self.message}"
        if self.hint:
            text += f"\n    {self.hint}"
        if self.snippet:
            gutter = f"{self.line:>5} | "
            text += f"\n{gutter}{self.snippet}\n{' ' * (len(gutter) + max(self.column - 1, 0))}^"
        return text

    def to_json(self) -> dict[str, str | int]:
        """The problem as a JSON object: its place, code, message and hint."""
        return {name: getattr(self, name) for name in ("file", "line", "column", "code", "message", "hint")}


class BakeError(Exception):
    """An expected error. `hint` says what to do about it; `code` is its stable name."""

    exit_code = 1
    default_code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or self.default_code

    def __str__(self) -> str:
        return self.message + (f"\n    {self.hint}" if self.hint else "")


class UsageError(BakeError):
    """The command line or the API was used wrongly."""

    exit_code = 2
    default_code = "usage.invalid"


class TemplateError(BakeError):
    """A template has problems: all that were found, in the order of their places."""

    exit_code = 2
    default_code = "template.invalid"

    def __init__(self, problems: list[Problem] | tuple[Problem, ...]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def to_json(self) -> tuple[dict[str, str | int], ...]:
        """The problems as JSON objects: place, code, message and hint of each."""
        return tuple(each.to_json() for each in self.problems)


class BuildError(BakeError):
    """The build ran and failed."""

    exit_code = 3
    default_code = "build.failed"


class SourceError(BuildError):
    """The source image is not available: no such file, a wrong checksum, a failed bootstrap."""

    default_code = "source.unavailable"


class BootError(BuildError):
    """The machine did not boot, or did not answer in time. `console` holds the console log's last lines."""

    default_code = "machine.boot-failed"

    def __init__(self, message: str, *, console: tuple[str, ...] = (), hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.console = console


class StepError(BuildError):
    """A provisioning step failed. `output` holds the last lines that it wrote."""

    default_code = "step.failed"

    def __init__(
        self,
        message: str,
        *,
        step: str,
        exit_code_of_step: int | None = None,
        output: tuple[str, ...] = (),
        hint: str = "",
        code: str = "",
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.step = step
        self.exit_code_of_step = exit_code_of_step
        self.output = output


class VerifyError(BakeError):
    """The captured image failed its tests, so it is not registered."""

    exit_code = 4
    default_code = "verify.failed"


class NotFoundError(BakeError):
    """No such image, build or layer."""

    exit_code = 5
    default_code = "catalog.not-found"


class HostError(BakeError):
    """This host lacks something that the work needs: a tool, a right, space on a disk."""

    exit_code = 6
    default_code = "host.unusable"


class LayerError(HostError):
    """A layer can never be restored on this host: it is damaged, or was made by other versions of programs."""

    default_code = "layer.unusable"


class BusyError(BakeError):
    """Another process uses the resource now."""

    exit_code = 7
    default_code = "host.busy"


class LockError(BakeError):
    """A lock file is missing, unreadable or outdated, or an image differs from it: every difference."""

    exit_code = 8
    default_code = "lock.mismatch"

    def __init__(self, problems: list[Problem] | tuple[Problem, ...]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP as an exception, so that every `finally` runs. It is no Exception: no `except Exception` catches it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"interrupted by signal {signal_number}")
        self.code = "interrupted"
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number


def error_to_json(error: BakeError | Interrupted) -> dict[str, Any]:
    """An error as `--json` shows it: `code`, `message`, `hint`, `exit_code`, and the list `problems` of a file."""
    problems = error.to_json() if isinstance(error, TemplateError) else [p.to_json() for p in getattr(error, "problems", ())]
    return {
        "code": error.code,
        "message": getattr(error, "message", str(error)),
        "hint": getattr(error, "hint", ""),
        "exit_code": error.exit_code,
        "problems": list(problems),
    }
