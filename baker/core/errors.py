"""What can go wrong, as a tree of types. Only the command line prints these and exits.

    BakeError                    anything expected; str(error) is one or more plain sentences
    |-- UsageError               2  the command line asks for something that makes no sense
    |-- TemplateError            2  the template (or a file it names) has problems; all of them, with places
    |-- BuildError               3  the build ran and failed
    |   |-- SourceError          3  the source image could not be had
    |   |-- BootError            3  the machine did not come up; carries the console's last lines
    |   `-- StepError            3  a provisioning step failed; carries step, exit code, last output
    |-- VerifyError              4  the captured image failed its tests
    |-- NotFoundError            5  no such image, build, layer
    |-- HostError                6  this host lacks something: a tool, a right, space
    |-- BusyError                7  somebody else uses it now; try again or stop them
    `-- LockError                8  a build is not what its lock file says, or there is none that can be read

Each type has the exit code of the process that ends with it; 0 is success, 1 an internal error (a bug), 130 and 143 an
interrupt (SIGINT, SIGTERM).

Every error also has a `code`, `AREA.WHAT` in lower case with hyphens, such as `machine.ssh-timeout`. Codes are stable: programs
and tests match them, messages may change. A type has a general code; whoever raises it may give a more exact one.
docs/errors.md lists them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong in a file, where the user typed it. `line` and `column` count from 1; 0 means "the whole file"."""

    file: str
    line: int
    column: int
    message: str
    hint: str = ""
    snippet: str = ""
    code: str = "template.invalid"

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
        """The problem for a program: where it is, what it is, and what would be right."""
        return {name: getattr(self, name) for name in ("file", "line", "column", "code", "message", "hint")}


class BakeError(Exception):
    """Anything that bake expects can go wrong. `hint` says what to do about it; `code` is the error's stable name."""

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
    """The command line asks for something that makes no sense."""

    exit_code = 2
    default_code = "usage.invalid"


class TemplateError(BakeError):
    """A template has problems: every one that could be found, in file order."""

    exit_code = 2
    default_code = "template.invalid"

    def __init__(self, problems: list[Problem] | tuple[Problem, ...]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def to_json(self) -> tuple[dict[str, str | int], ...]:
        """The problems for a program: where each is, what it is, and what would be right."""
        return tuple(each.to_json() for each in self.problems)


class BuildError(BakeError):
    """The build ran and failed."""

    exit_code = 3
    default_code = "build.failed"


class SourceError(BuildError):
    """The source image could not be had: no such file, a wrong checksum, a failed bootstrap."""

    default_code = "source.unavailable"


class BootError(BuildError):
    """The machine did not come up in time. `console` holds the console log's last lines."""

    default_code = "machine.boot-failed"

    def __init__(self, message: str, *, console: tuple[str, ...] = (), hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.console = console


class StepError(BuildError):
    """A provisioning step failed."""

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
    """A layer cannot be restored on this host, now or later: it is damaged, or was kept by other programs."""

    default_code = "layer.unusable"


class BusyError(BakeError):
    """Somebody else is using it now."""

    exit_code = 7
    default_code = "host.busy"


class LockError(BakeError):
    """A lock file that is missing, broken or stale, or an image that is not what it says: every difference."""

    exit_code = 8
    default_code = "lock.mismatch"

    def __init__(self, problems: list[Problem] | tuple[Problem, ...]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP, as an exception so that every `finally` runs. Not an Exception: nobody swallows it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"interrupted by signal {signal_number}")
        self.code = "interrupted"
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number


def error_to_json(error: BakeError | Interrupted) -> dict[str, Any]:
    """What `--json` shows of an error: `code`, `message`, `hint`, `exit_code`, and the single `problems` of a file."""
    problems = error.to_json() if isinstance(error, TemplateError) else [p.to_json() for p in getattr(error, "problems", ())]
    return {
        "code": error.code,
        "message": getattr(error, "message", str(error)),
        "hint": getattr(error, "hint", ""),
        "exit_code": error.exit_code,
        "problems": list(problems),
    }
