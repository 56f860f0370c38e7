"""A sink that writes the complete log of one build for its record: every event with its time, and every line of output."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from baker.core import events
from baker.core.events import Event
from baker.render.describe import describe
from baker.render.text import clean


class LogFile:
    """Writes events to `path`, flushed line by line so that a killed build leaves its log.

    A line is `2026-11-22T20:45:51.123Z text`. Output is indented and marked `|` (stdout), `!` (stderr) or `#` (serial console).
    With `build`, events of other builds are left out. After a failed write, `error` has the reason and nothing more is written.
    """

    def __init__(self, path: Path, *, build: str = "") -> None:
        self.path = path
        self.build = build
        self.error: OSError | None = None
        self._lock = threading.Lock()
        self._file = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)

    def emit(self, event: Event) -> None:
        if (self.build and event.build not in ("", self.build)) or isinstance(event, events.Progress):
            return
        self._write(event.at, _lines(event))

    def write_error(self, text: str) -> None:
        """Append the error with which the build failed."""
        self._write(time.time(), [f"error: {clean(line)}" for line in text.splitlines()])

    def _write(self, at: float, lines: list[str]) -> None:
        timestamp = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with self._lock:
            if self.error is not None or self._file.closed:
                return
            try:
                for line in lines:
                    self._file.write(f"{timestamp} {line}\n")
            except OSError as error:
                self.error = error

    def close(self) -> None:
        with self._lock:
            try:
                self._file.close()
            except OSError as error:
                self.error = self.error or error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _lines(event: Event) -> list[str]:
    if isinstance(event, events.Output):
        mark = {"stdout": "|", "stderr": "!", "console": "#"}[event.stream]
        return [f"  {mark} {clean(event.line)}".rstrip()]
    return describe(event)
