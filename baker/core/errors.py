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
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong in a file, where the user typed it. `line` and `column` count from 1; 0 means "the whole file"."""

    file: str
    line: int
    column: int
    message: str
    hint: str = ""
    snippet: str = ""

    def __str__(self) -> str:
        place = self.file + (f":{self.line}:{self.column}" if self.line else "")
        text = f"{place}: {self.message}"
        if self.hint:
            text += f"\n    {self.hint}"
        if self.snippet:
            gutter = f"{self.line:>5} | "
            text += f"\n{gutter}{self.snippet}\n{' ' * (len(gutter) + max(self.column - 1, 0))}^"
        return text


class BakeError(Exception):
    """Anything that bake expects can go wrong. `hint` says what to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message + (f"\n    {self.hint}" if self.hint else "")


class UsageError(BakeError):
    """The command line asks for something that makes no sense."""

    exit_code = 2


class TemplateError(BakeError):
    """A template has problems: every one that could be found, in file order."""

    exit_code = 2

    def __init__(self, problems: list[Problem] | tuple[Problem, ...]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def to_json(self) -> tuple[dict[str, str | int], ...]:
        """The problems for a program: where each is, what it is, and what would be right."""
        return tuple({name: getattr(each, name) for name in ("file", "line", "column", "message", "hint")} for each in self.problems)


class BuildError(BakeError):
    """The build ran and failed."""

    exit_code = 3


class SourceError(BuildError):
    """The source image could not be had: no such file, a wrong checksum, a failed bootstrap."""


class BootError(BuildError):
    """The machine did not come up in time. `console` holds the console log's last lines."""

    def __init__(self, message: str, *, console: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.console = console


class StepError(BuildError):
    """A provisioning step failed."""

    def __init__(
        self, message: str, *, step: str, exit_code_of_step: int | None = None, output: tuple[str, ...] = (), hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.step = step
        self.exit_code_of_step = exit_code_of_step
        self.output = output


class VerifyError(BakeError):
    """The captured image failed its tests, so it is not registered."""

    exit_code = 4


class NotFoundError(BakeError):
    """No such image, build or layer."""

    exit_code = 5


class HostError(BakeError):
    """This host lacks something that the work needs: a tool, a right, space on a disk."""

    exit_code = 6


class LayerError(HostError):
    """A layer cannot be restored on this host, now or later: it is damaged, or was kept by other programs."""


class BusyError(BakeError):
    """Somebody else is using it now."""

    exit_code = 7


class LockError(BakeError):
    """A lock file that is missing, broken or stale, or an image that is not what it says: every difference."""

    exit_code = 8

    def __init__(self, problems: list[Problem] | tuple[Problem, ...]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP, as an exception so that every `finally` runs. Not an Exception: nobody swallows it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"interrupted by signal {signal_number}")
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number
