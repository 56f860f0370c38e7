"""A sink that writes plain lines, for CI and other places without a terminal: no colours, no control characters, no redrawing."""

from __future__ import annotations

import threading

from baker.core import events
from baker.core.events import Event
from baker.render.describe import describe
from baker.render.state import Builds, BuildState
from baker.render.summary import summary
from baker.render.terminal import Terminal
from baker.render.text import clean, duration, pad, size

PROGRESS_SECONDS = 10.0  # between two lines about one transfer


class Plain:
    """Writes each event in a line after the time since the start. With several builds, lines begin with the name of the build.

    Failures and warnings go to `error`, everything else to `out`. `debug` shows debug messages as well.
    """

    def __init__(self, out: Terminal, error: Terminal, *, debug: bool = False) -> None:
        self.out = out
        self.error = error
        self.debug = debug
        self.builds = Builds()
        self._lock = threading.RLock()  # reentrant: a signal handler may emit while this thread holds it
        self._start: float | None = None
        self._progress: dict[tuple[str, str], float] = {}

    def emit(self, event: Event) -> None:
        with self._lock:
            if self._start is None:
                self._start = event.at
            state = self.builds.apply(event)
            try:
                self._show(event, state)
            except (OSError, ValueError):
                pass  # a closed stream must not stop a build

    def close(self) -> None:
        """Do nothing: every line was flushed."""

    def _show(self, event: Event, state: BuildState | None) -> None:
        match event:
            case events.Output():
                mark = "#" if event.stream == "console" else "|"
                self._line(event, state, f"  {mark} {clean(event.line)}".rstrip())
            case events.Progress():
                self._show_progress(event, state)
            case events.BuildFinished() if state is not None:
                target = self.out if event.status in ("built", "unchanged") else self.error
                for line in ("", *summary(state, target), ""):
                    target.line(line)
            case events.Message(level="debug") if not self.debug:
                pass
            case _:
                for line in describe(event):
                    self._line(event, state, line)

    def _show_progress(self, event: events.Progress, state: BuildState | None) -> None:
        key, finished = (event.build, event.label), bool(event.total) and event.done >= event.total
        last = self._progress.get(key)
        if last is not None and not finished and event.at - last < PROGRESS_SECONDS:
            return
        if finished:
            self._progress.pop(key, None)
            if last is None:
                return  # it was too short to show
        else:
            self._progress[key] = event.at
            if last is None:
                return
        self._line(event, state, f"{clean(event.label)}: {amount(event.done, event.total, event.unit)}")

    def _line(self, event: Event, state: BuildState | None, text: str) -> None:
        elapsed = pad(duration(event.at - (self._start or event.at)), 7, right=True)
        prefix = f"{state.title}: " if state is not None and self.builds.several else ""
        target = self.error if isinstance(event, events.Message) and event.level in ("warning", "error") else self.out
        target.line(f"{elapsed}  {prefix}{text}".rstrip())


def amount(done: int, total: int, unit: str) -> str:
    """The amount that is done: "120 MiB of 300 MiB (40%)", "12 of 40"; "120 MiB" when `total` is unknown (0)."""
    show = size if unit == "bytes" else str
    if not total:
        return show(done)
    return f"{show(done)} of {show(total)} ({100 * done // total}%)"
