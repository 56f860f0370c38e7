"""A sink that writes events as JSON lines, for other programs."""

from __future__ import annotations

import json
import threading
from typing import TextIO

from baker.core.events import BuildFinished, Event, TemplateRejected


class JsonLines:
    """Writes one JSON object per event and line. `event` is its type in snake_case, `build` its build, `at` in seconds since 1970."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.ended = False  # whether an event has reported how a build ended
        self._lock = threading.RLock()  # reentrant: a signal handler may emit while this very thread writes

    def emit(self, event: Event) -> None:
        self.ended = self.ended or isinstance(event, BuildFinished | TemplateRejected)
        line = json.dumps(event.to_json(), ensure_ascii=True, default=str) + "\n"
        with self._lock:
            try:
                self.stream.write(line)
                self.stream.flush()
            except (OSError, ValueError):
                pass  # a closed stream must not stop a build

    def close(self) -> None:
        """Do nothing: every line was flushed."""
