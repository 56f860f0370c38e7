"""A sink for a live terminal: finished work scrolls up, and running work is redrawn below it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from rich.console import Console, Group
from rich.live import Live as RichLive
from rich.text import Text

from baker.core import events
from baker.core.events import Event
from baker.render.plain import amount
from baker.render.state import Builds, BuildState, Transfer
from baker.render.summary import summary
from baker.render.terminal import Terminal
from baker.render.text import cells, clean, cut, duration, pad, size

REFRESH_PER_SECOND = 8
MAX_WIDTH = 100  # cells, so that times stay near their text on a wide terminal
TIME_CELLS = 7
BAR_CELLS = 24
NAME_CELLS = 24


class TolerantStream:
    """A stream that ignores write errors. On an error, rich would end the process, and its thread would print a traceback."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            pass


class Live:
    """Draws running builds on a terminal.

    With one build, finished stages and steps scroll up; below are the running stage and step, their times, and the last output line
    or the transfer. With several builds, each has one line. `verbose` also shows every output line, `debug` debug messages.
    Failures go to `error` when that is not a terminal.
    """

    def __init__(
        self, out: Terminal, error: Terminal, *, verbose: bool = False, debug: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self.out = out
        self.error = error
        self.verbose = verbose
        self.debug = debug
        self.builds = Builds()
        self._clock = clock
        self._lock = threading.RLock()  # reentrant: a signal handler may emit while this thread holds it
        self._console = Console(
            file=cast(TextIO, TolerantStream(out.stream)),
            force_terminal=True,
            color_system="standard" if out.color else None,
            no_color=not out.color,
            width=out.columns,
            highlight=False,
            markup=False,
            emoji=False,
            _environ={},  # what the terminal can do was decided from the environment of this run, not from that of the process
        )
        self._live = RichLive(
            console=self._console,
            get_renderable=self._draw,
            refresh_per_second=REFRESH_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def emit(self, event: Event) -> None:
        with self._lock:
            try:
                if not self._live.is_started:
                    self._live.start()
                path = self._path(event)
                state = self.builds.apply(event)
                self._show(event, state, path)
            except (OSError, ValueError):
                pass  # a broken terminal does not break a build

    def close(self) -> None:
        """Stop drawing and restore the terminal: the cursor is visible, and the drawn lines are removed."""
        with self._lock:
            try:
                self._live.stop()
            except (OSError, ValueError):
                pass

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Stop drawing during the block, so that a question or a shell can use the terminal."""
        with self._lock:
            self.close()
            try:
                yield
            finally:
                self._live.start()

    # --- lines that scroll up --------------------------------------------------------------------------------------

    def _path(self, event: Event) -> str:
        """The name of a stage that ends now after the names of its outer stages: "verify: boot"; "" for other events."""
        state = self.builds.by_id.get(event.build)
        if not isinstance(event, events.StageFinished):
            return ""
        names = [stage.name for stage in state.stages] if state else []
        outer = names[: len(names) - 1 - names[::-1].index(event.stage)] if event.stage in names else []
        return ": ".join([*outer, event.stage])

    def _show(self, event: Event, state: BuildState | None, path: str) -> None:
        several_builds = len(self.builds.running) > 1
        match event:
            case events.BuildFinished() if state is not None:
                self._show_end(state)
            case events.Message():
                self._show_message(event, state)
            case events.Output() if self.verbose:
                self._print(f"{self._prefix(state)}      {self._bar()} {clean(event.line)}")
            case events.TestFinished() if self.verbose or event.outcome in ("failed", "error"):
                self._row(event.outcome in ("passed", "skipped"), f"  test {clean(event.name)}", event.seconds, self._prefix(state))
            case events.BuildStarted():
                paint = self.out.paint
                self._print(f"{paint(event.name, 'bold')} {paint(event.version, 'bold')} {paint(f'build {event.build}', 'dim')}")
            case _ if several_builds and not self.verbose:
                pass
            case events.StageFinished():
                detail = f" {clean(event.detail)}" if event.detail else ""
                self._row(event.ok, f"  {path}{detail}", event.seconds, self._prefix(state))
            case events.StepFinished() if state is not None:
                note = (
                    " cached" if event.cached else f" exit code {event.exit_code}" if not event.ok and event.exit_code is not None else ""
                )
                title = f"  step {event.index}/{max(len(state.steps), event.index)} {clean(event.step)}"
                self._row(event.ok, title, event.seconds, self._prefix(state), note)

    def _show_message(self, event: events.Message, state: BuildState | None) -> None:
        if event.level == "debug" and not self.debug:
            return
        paint, glyphs = self.out.paint, self.out.glyphs
        style = {"debug": "dim", "info": "dim", "warning": "yellow", "error": "red"}[event.level]
        sign = glyphs.dot if event.level in ("debug", "info") else glyphs.warn
        first, *more = [*event.text.splitlines(), *event.hint.splitlines()] or [""]
        prefix, room = self._prefix(state), 10_000
        if event.level == "info" and not self.verbose:  # the log has the complete text
            room = self._width() - 4 - (cells(state.title) + 2 if prefix and state else 0)
        self._print(f"{prefix}  {paint(sign, style)} {paint(cut(clean(first), room, glyphs.ellipsis), style)}")
        for line in more:
            self._print(f"{prefix}    {paint(clean(line), style)}")

    def _show_end(self, state: BuildState) -> None:
        failed = state.finished is not None and state.finished.status in ("failed", "interrupted")
        target = self.error if failed and not self.error.interactive else self.out
        lines = summary(state, target)
        if target is self.error:
            for line in lines:
                target.line(line)
            return
        for line in ("", *lines, ""):
            self._print(line)

    def _row(self, ok: bool, text: str, seconds: float, prefix: str, note: str = "") -> None:
        """Print a finished stage, step or test: "  ✓ provision                    1m02s", the sign directly before the text."""
        glyph = self.out.paint(self.out.glyphs.ok, "green") if ok else self.out.paint(self.out.glyphs.bad, "red")
        self._print(prefix + self._timed(text, seconds, glyph, note))

    def _timed(self, text: str, seconds: float, sign: str, note: str = "") -> str:
        """A line of indentation, sign, text and, right-aligned, time."""
        indent = len(text) - len(text.lstrip())
        room = min(self._width(), MAX_WIDTH) - TIME_CELLS - 2
        body = cut(text.strip() + note, room - indent - 2, self.out.glyphs.ellipsis)
        return (
            f"{' ' * indent}{sign} {pad(body, room - indent - 2)} {self.out.paint(pad(duration(seconds), TIME_CELLS, right=True), 'dim')}"
        )

    def _prefix(self, state: BuildState | None) -> str:
        return self.out.paint(f"{state.title}: ", "cyan") if state is not None and len(self.builds.running) > 1 else ""

    def _bar(self) -> str:
        return self.out.paint(self.out.glyphs.bar, "dim")

    def _print(self, line: str) -> None:
        self._console.print(Text.from_ansi(line), soft_wrap=True)

    # --- lines that are redrawn --------------------------------------------------------------------------------------
    # rich calls these from its own thread. They take no lock and copy the lists that they iterate over.

    def _draw(self) -> Group:
        running = [state for state in list(self.builds.by_id.values()) if state.finished is None]
        if len(running) > 1:
            lines = [self._build_line(state) for state in running]
        else:
            lines = [line for state in running for line in self._build_block(state)]
        return Group(*(Text.from_ansi(line, no_wrap=True, overflow="crop") for line in lines))

    def _width(self) -> int:
        return (self.out.width or 80) - 1

    def _spinner(self) -> str:
        frames = self.out.glyphs.spinner
        return self.out.paint(frames[int(self._clock() * REFRESH_PER_SECOND) % len(frames)], "cyan")

    def _build_block(self, state: BuildState) -> list[str]:
        """Lines for the only running build: its stages, its step, and its transfer or last output line."""
        now, step, transfer = self._clock(), state.step, state.transfer
        lines = []
        for depth, stage in enumerate(list(state.stages)):
            title = "  " * (depth + 1) + f"{stage.name} {clean(stage.detail)}".strip()
            lines.append(self._timed(title, now - stage.started, self._spinner()))
        if step is not None:
            lines.append(self._timed(f"    {step.index}/{step.total} {clean(step.step)} ({step.kind})", now - step.at, self._spinner()))
        if transfer is not None:
            lines.append("      " + self._transfer(transfer, self._width() - 6))
        elif state.last_line:
            lines.append(f"      {self._bar()} {self.out.paint(cut(state.last_line, self._width() - 8, self.out.glyphs.ellipsis), 'dim')}")
        return lines

    def _build_line(self, state: BuildState) -> str:
        """The line for one of several builds: name, stage or step, elapsed time, transfer or last output line."""
        position, transfer = "", state.transfer
        if state.step is not None:
            position = f"{state.step.index}/{state.step.total} {clean(state.step.step)}"
        elif state.stages:
            position = state.stages[-1].name
        names = max(cells(other.title) for other in list(self.builds.by_id.values()))
        name = self.out.paint(pad(cut(state.title, NAME_CELLS, self.out.glyphs.ellipsis), min(names, NAME_CELLS)), "bold")
        elapsed = pad(duration(self._clock() - state.started), TIME_CELLS, right=True)
        used = min(names, NAME_CELLS) + NAME_CELLS + TIME_CELLS + 6
        tail = clean(transfer.label) + " " + amount(transfer.done, transfer.total, transfer.unit) if transfer else state.last_line
        position = pad(cut(position, NAME_CELLS, self.out.glyphs.ellipsis), NAME_CELLS)
        rest = self.out.paint(cut(tail, max(self._width() - used, 0), self.out.glyphs.ellipsis), "dim")
        return f"{self._spinner()} {name} {position} {elapsed}  {rest}"

    def _transfer(self, transfer: Transfer, room: int) -> str:
        """A transfer in at most `room` cells: "label ━━━━━──── 120 MiB of 300 MiB (40%), 12 MiB/s, 15s left"."""
        glyphs, parts = self.out.glyphs, [amount(transfer.done, transfer.total, transfer.unit)]
        if transfer.rate > 0:
            parts.append(f"{size(transfer.rate)}/s" if transfer.unit == "bytes" else f"{transfer.rate:.1f}/s")
            if transfer.total:
                parts.append(f"{duration((transfer.total - transfer.done) / transfer.rate)} left")
        numbers = ", ".join(parts)
        label = cut(clean(transfer.label), max(room - cells(numbers) - 1, _MIN_LABEL_CELLS), glyphs.ellipsis)
        text = f"{label} {numbers}"
        bar_room = min(room - cells(text) - 1, BAR_CELLS)
        if not transfer.total or bar_room < _MIN_BAR_CELLS:
            return cut(text, room, glyphs.ellipsis)
        full = min(bar_room * transfer.done // transfer.total, bar_room)
        return f"{label} {self.out.paint(glyphs.full * full, 'green')}{self.out.paint(glyphs.empty * (bar_room - full), 'dim')} {numbers}"


_MIN_LABEL_CELLS = 8
_MIN_BAR_CELLS = 6
