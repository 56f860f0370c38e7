"""A sink that shows only warnings, failures, and the id of each image."""

from __future__ import annotations

import threading

from baker.core import events
from baker.core.events import Event
from baker.render.describe import describe
from baker.render.state import Builds
from baker.render.summary import summary
from baker.render.terminal import Terminal


class Quiet:
    """Writes the image id of each successful build to `out`, and warnings and failures to `error`."""

    def __init__(self, out: Terminal, error: Terminal) -> None:
        self.out = out
        self.error = error
        self.builds = Builds()
        self._lock = threading.RLock()  # reentrant: a signal handler may emit while this thread holds it

    def emit(self, event: Event) -> None:
        with self._lock:
            state = self.builds.apply(event)
            try:
                if isinstance(event, events.Message) and event.level in ("warning", "error"):
                    prefix = f"{state.title}: " if state is not None and self.builds.several else ""
                    for line in describe(event):
                        self.error.line(prefix + line)
                elif isinstance(event, events.BuildFinished) and state is not None:
                    self.out.line(event.image) if event.image else self._fail(state.id)
            except (OSError, ValueError):
                pass  # a closed stream must not stop a build

    def close(self) -> None:
        """Do nothing: every line was flushed."""

    def _fail(self, build: str) -> None:
        for line in summary(self.builds.by_id[build], self.error):
            self.error.line(line)
