"""A live terminal: what is finished scrolls up, what runs now is drawn below and redrawn."""

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
WIDEST = 100  # cells: times stay near to what they belong to on a wide terminal
TIME_CELLS = 7
BAR_CELLS = 24
NAME_CELLS = 24


class Forgiving:
    """A stream that forgets what it cannot write: rich would end the process, and its own thread would print a traceback."""

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
    """One build: its stages and steps as they finish, and below them stage, step, time, last output line and transfer of now.
    Several builds at once: one line each. `verbose` scrolls every output line by, `debug` debug messages too.

    Failures go to `error` where that is not this terminal.
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
        self._lock = threading.RLock()  # reentrant: a signal handler on this very thread may emit too
        self._console = Console(
            file=cast(TextIO, Forgiving(out.stream)),
            force_terminal=True,
            color_system="standard" if out.color else None,
            no_color=not out.color,
            width=out.columns,
            highlight=False,
            markup=False,
            emoji=False,
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
        """Give the terminal back: the cursor shows, the lines below are free."""
        with self._lock:
            try:
                self._live.stop()
            except (OSError, ValueError):
                pass

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Leave the terminal to somebody else for a while: a question, a shell."""
        with self._lock:
            self.close()
            try:
                yield
            finally:
                self._live.start()

    # What scrolls up.

    def _path(self, event: Event) -> str:
        """A stage that ends now, after those that it is inside of: "verify: boot". What scrolls up is flat, in the order of time."""
        state = self.builds.by_id.get(event.build)
        if not isinstance(event, events.StageFinished):
            return ""
        names = [stage.name for stage in state.stages] if state else []
        outer = names[: len(names) - 1 - names[::-1].index(event.stage)] if event.stage in names else []
        return ": ".join([*outer, event.stage])

    def _show(self, event: Event, state: BuildState | None, path: str) -> None:
        one_line_each = len(self.builds.running) > 1
        match event:
            case events.BuildFinished() if state is not None:
                self._end(state)
            case events.Message():
                self._show_message(event, state)
            case events.Output() if self.verbose:
                self._print(f"{self._prefix(state)}      {self._bar()} {clean(event.line)}")
            case events.TestFinished() if self.verbose or event.outcome in ("failed", "error"):
                self._row(event.outcome in ("passed", "skipped"), f"  test {clean(event.name)}", event.seconds, self._prefix(state))
            case events.BuildStarted():
                paint = self.out.paint
                self._print(f"{paint(event.name, 'bold')} {paint(event.version, 'bold')} {paint(f'build {event.build}', 'dim')}")
            case _ if one_line_each and not self.verbose:
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
        if event.level == "info" and not self.verbose:  # the log has it whole
            room = self._width() - 4 - (cells(state.title) + 2 if prefix and state else 0)
        self._print(f"{prefix}  {paint(sign, style)} {paint(cut(clean(first), room, glyphs.ellipsis), style)}")
        for line in more:
            self._print(f"{prefix}    {paint(clean(line), style)}")

    def _end(self, state: BuildState) -> None:
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
        """`  ✓ provision                    1m02s`: the sign stands right before the text, whatever its indentation."""
        glyph = self.out.paint(self.out.glyphs.ok, "green") if ok else self.out.paint(self.out.glyphs.bad, "red")
        self._print(prefix + self._timed(text, seconds, glyph, note))

    def _timed(self, text: str, seconds: float, sign: str, note: str = "") -> str:
        indent = len(text) - len(text.lstrip())
        room = min(self._width(), WIDEST) - TIME_CELLS - 2
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

    # What is drawn below. Called by rich's own thread: takes no lock of ours, copies what it walks through.

    def _draw(self) -> Group:
        running = [state for state in list(self.builds.by_id.values()) if state.finished is None]
        if len(running) > 1:
            lines = [self._line_of(state) for state in running]
        else:
            lines = [line for state in running for line in self._block_of(state)]
        return Group(*(Text.from_ansi(line, no_wrap=True, overflow="crop") for line in lines))

    def _width(self) -> int:
        return (self.out.width or 80) - 1

    def _spin(self) -> str:
        frames = self.out.glyphs.spinner
        return self.out.paint(frames[int(self._clock() * REFRESH_PER_SECOND) % len(frames)], "cyan")

    def _block_of(self, state: BuildState) -> list[str]:
        """Stages, step, last line and transfer of the only build that runs."""
        now, step, transfer = self._clock(), state.step, state.transfer
        lines = []
        for depth, stage in enumerate(list(state.stages)):
            title = "  " * (depth + 1) + f"{stage.name} {clean(stage.detail)}".strip()
            lines.append(self._timed(title, now - stage.started, self._spin()))
        if step is not None:
            lines.append(self._timed(f"    {step.index}/{step.total} {clean(step.step)} ({step.kind})", now - step.at, self._spin()))
        if transfer is not None:
            lines.append("      " + self._transfer(transfer, self._width() - 6))
        elif state.last_line:
            lines.append(f"      {self._bar()} {self.out.paint(cut(state.last_line, self._width() - 8, self.out.glyphs.ellipsis), 'dim')}")
        return lines

    def _line_of(self, state: BuildState) -> str:
        """One of several builds: name, where it is, how long it takes, its last line."""
        where, transfer = "", state.transfer
        if state.step is not None:
            where = f"{state.step.index}/{state.step.total} {clean(state.step.step)}"
        elif state.stages:
            where = state.stages[-1].name
        names = max(cells(other.title) for other in list(self.builds.by_id.values()))
        name = self.out.paint(pad(cut(state.title, NAME_CELLS, self.out.glyphs.ellipsis), min(names, NAME_CELLS)), "bold")
        elapsed = pad(duration(self._clock() - state.started), TIME_CELLS, right=True)
        used = min(names, NAME_CELLS) + NAME_CELLS + TIME_CELLS + 6
        tail = clean(transfer.label) + " " + amount(transfer.done, transfer.total, transfer.unit) if transfer else state.last_line
        where = pad(cut(where, NAME_CELLS, self.out.glyphs.ellipsis), NAME_CELLS)
        rest = self.out.paint(cut(tail, max(self._width() - used, 0), self.out.glyphs.ellipsis), "dim")
        return f"{self._spin()} {name} {where} {elapsed}  {rest}"

    def _transfer(self, transfer: Transfer, room: int) -> str:
        """`label ━━━━━──── 120 MiB of 300 MiB (40%), 12 MiB/s, 15s left` in at most `room` cells."""
        glyphs, parts = self.out.glyphs, [amount(transfer.done, transfer.total, transfer.unit)]
        if transfer.rate > 0:
            parts.append(f"{size(transfer.rate)}/s" if transfer.unit == "bytes" else f"{transfer.rate:.1f}/s")
            if transfer.total:
                parts.append(f"{duration((transfer.total - transfer.done) / transfer.rate)} left")
        numbers = ", ".join(parts)
        label = cut(clean(transfer.label), max(room - cells(numbers) - 1, _SHORTEST_LABEL), glyphs.ellipsis)
        text = f"{label} {numbers}"
        bar_room = min(room - cells(text) - 1, BAR_CELLS)
        if not transfer.total or bar_room < _SHORTEST_BAR:
            return cut(text, room, glyphs.ellipsis)
        full = min(bar_room * transfer.done // transfer.total, bar_room)
        return f"{label} {self.out.paint(glyphs.full * full, 'green')}{self.out.paint(glyphs.empty * (bar_room - full), 'dim')} {numbers}"


_SHORTEST_LABEL = 8
_SHORTEST_BAR = 6
