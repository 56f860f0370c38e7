"""The question at the terminal when a step fails: clean up, leave the machine, retry, or open a shell (`--on-error`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from baker.build.services import Decision
from baker.cli.app import App
from baker.cli.display import Display
from baker.core import process
from baker.core.errors import BakeError, StepError
from baker.render.text import clean

ANSWERS: dict[str, Decision | Literal["shell"]] = {"c": "cleanup", "a": "abort", "r": "retry", "s": "shell"}
QUESTION = "[c]lean up, [a]bort and leave the machine, [r]etry the step, [s]hell in the machine? "
SHOWN_LINES = 10


class Prompt:
    """Asks for the decision of `on_error: ask` and `on_error: shell`. Without a terminal the build is cleaned up."""

    def __init__(self, app: App, shown: Display) -> None:
        self.app = app
        self.shown = shown

    def on_failure(self, policy: Literal["ask", "shell"], error: BakeError, ssh: Sequence[str]) -> Decision:
        """Ask what to do with the machine of a failed step; with the policy `shell`, open a shell in it first."""
        if not self.app.interactive:
            self.app.warn(f"on-error is {policy}, but there is no terminal for the question: cleaning up")
            return "cleanup"
        with self._terminal():
            self._show_error(error)
            if policy == "shell":
                self._shell(ssh)
            return self._ask(ssh)

    def _ask(self, ssh: Sequence[str]) -> Decision:
        while True:
            self.app.err.stream.write(QUESTION)
            self.app.err.stream.flush()
            line = self.app.stdin.readline()
            answer = ANSWERS.get(line.strip().lower()[:1]) if line else "cleanup"
            if answer == "shell":
                self._shell(ssh)
            elif answer is not None:
                return answer

    def _show_error(self, error: BakeError) -> None:
        paint = self.app.err.paint
        self.app.err.line()
        for line in error.message.splitlines():
            self.app.err.line(f"{paint(self.app.err.glyphs.bad, 'red')} {clean(line)}")
        if isinstance(error, StepError):
            for line in error.output[-SHOWN_LINES:]:
                self.app.err.line(f"    {paint(self.app.err.glyphs.bar, 'dim')} {clean(line)}")

    def _shell(self, ssh: Sequence[str]) -> None:
        self.app.err.line(f"shell in the failed machine ({' '.join(ssh)}); leave it with `exit`")
        process.interactive(ssh)

    @contextmanager
    def _terminal(self) -> Iterator[None]:
        suspended = getattr(self.shown, "suspended", None)
        if suspended is None:
            yield
            return
        with suspended():
            yield
