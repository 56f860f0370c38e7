"""The state of each build, computed from its events so far. Sinks update it and draw it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from baker.core import events
from baker.core.events import Event
from baker.render.text import clean

TAIL_LINES = 20  # of output that the summary of a failed build shows
RATE_SECONDS = 5.0  # over which the rate of a transfer is averaged


@dataclass
class Stage:
    """A running stage. Stages nest: a verification boots a machine."""

    name: str
    detail: str
    started: float


@dataclass
class Transfer:
    """The progress of a long operation. `total` is 0 when it is unknown; `points` are (time in seconds, done) for the rate."""

    label: str
    unit: str
    done: int = 0
    total: int = 0
    points: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=64))

    def update(self, at: float, done: int, total: int) -> None:
        self.done, self.total = done, total
        self.points.append((at, done))
        while len(self.points) > 2 and at - self.points[0][0] > RATE_SECONDS:
            self.points.popleft()

    @property
    def rate(self) -> float:
        """The recent rate in units per second; 0 while it is unknown."""
        if len(self.points) < 2:
            return 0.0
        (first_at, first), (last_at, last) = self.points[0], self.points[-1]
        return (last - first) / (last_at - first_at) if last_at > first_at else 0.0


@dataclass
class BuildState:
    """The state of one build. Times are in seconds since 1970."""

    id: str
    name: str = ""
    version: str = ""
    template: str = ""
    started: float = 0.0
    steps: tuple[str, ...] = ()
    stages: list[Stage] = field(default_factory=list)
    step: events.StepStarted | None = None
    done: list[int] = field(default_factory=list)  # the numbers of the finished steps, cached ones included
    failed_step: events.StepFinished | None = None
    failed_stage: str = ""
    last_line: str = ""
    transfer: Transfer | None = None
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    console: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    tests: list[events.TestFinished] = field(default_factory=list)
    finished: events.BuildFinished | None = None

    @property
    def title(self) -> str:
        return self.name or self.id

    @property
    def broken_tests(self) -> list[events.TestFinished]:
        return [test for test in self.tests if test.outcome in ("failed", "error")]

    def apply(self, event: Event) -> None:
        """Update the state with an event of this build."""
        match event:
            case events.BuildStarted():
                self.name, self.version, self.template = event.name, event.version, event.template
                self.started, self.steps = event.at, event.steps
            case events.StageStarted():
                self.stages.append(Stage(event.stage, event.detail, event.at))
                self.transfer, self.last_line, self.failed_stage = None, "", ""  # the build continued after an earlier failure
                self.tail.clear()
            case events.StageFinished():
                self._end_stage(event)
            case events.StepStarted():
                self.step, self.last_line, self.transfer = event, "", None
                self.tail.clear()
            case events.StepFinished():
                self.step = None
                self.failed_step = None if event.ok else event
                self.done += [event.index] if event.ok else []
            case events.Output():
                self._apply_output(event)
            case events.Progress():
                self._apply_progress(event)
            case events.TestFinished():
                self.tests.append(event)
                self.last_line = f"{event.name} {event.outcome}"
            case events.BuildFinished():
                self.finished, self.name = event, event.name or self.name
                self.version = event.version or self.version
                self.stages.clear()

    def _end_stage(self, event: events.StageFinished) -> None:
        for index in range(len(self.stages) - 1, -1, -1):
            if self.stages[index].name == event.stage:
                del self.stages[index:]
                break
        self.transfer, self.last_line = None, ""
        if not event.ok and not self.failed_stage:
            self.failed_stage = event.stage

    def _apply_output(self, event: events.Output) -> None:
        line = clean(event.line)
        (self.console if event.stream == "console" else self.tail).append(line)
        if line.strip():
            self.last_line = line.strip()

    def _apply_progress(self, event: events.Progress) -> None:
        if self.transfer is None or self.transfer.label != event.label:
            self.transfer = Transfer(event.label, event.unit)
        self.transfer.update(event.at, event.done, event.total)
        if event.total and event.done >= event.total:
            self.transfer = None


class Builds:
    """All builds of one run, in the order of their first events."""

    def __init__(self) -> None:
        self.by_id: dict[str, BuildState] = {}

    def apply(self, event: Event) -> BuildState | None:
        """Update the state of the event's build and return it; None for an event without a build."""
        if not event.build:
            return None
        state = self.by_id.setdefault(event.build, BuildState(event.build, started=event.at))
        state.apply(event)
        return state

    @property
    def running(self) -> list[BuildState]:
        return [state for state in self.by_id.values() if state.finished is None]

    @property
    def several(self) -> bool:
        """Whether there is more than one build, so that lines need the build's name."""
        return len(self.by_id) > 1
