"""Events as JSON lines, for other programs."""

from __future__ import annotations

import json
import threading
from typing import TextIO

from baker.core.events import Event


class JsonLines:
    """One JSON object per event and line: `event` names its type (snake_case), `build` its build, `at` is in seconds since the epoch."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._lock = threading.RLock()  # reentrant: a signal handler may emit while this very thread writes

    def emit(self, event: Event) -> None:
        line = json.dumps(event.to_json(), ensure_ascii=True, default=str) + "\n"
        with self._lock:
            try:
                self.stream.write(line)
                self.stream.flush()
            except (OSError, ValueError):
                pass  # the reader is gone: that is no reason to stop a build

    def close(self) -> None:
        """Nothing is held back."""
