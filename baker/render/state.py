"""What the events so far say about each build: folded by the sinks, drawn by them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from baker.core import events
from baker.core.events import Event
from baker.render.text import clean

TAIL_LINES = 20  # of output that a failed build's end shows
RATE_SECONDS = 5.0  # over which a transfer's rate is averaged


@dataclass
class Stage:
    """A stage that runs now; stages nest (a verification boots a machine)."""

    name: str
    detail: str
    started: float


@dataclass
class Transfer:
    """A long piece of work with a known or unknown end."""

    label: str
    unit: str
    done: int = 0
    total: int = 0
    points: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=64))

    def move(self, at: float, done: int, total: int) -> None:
        self.done, self.total = done, total
        self.points.append((at, done))
        while len(self.points) > 2 and at - self.points[0][0] > RATE_SECONDS:
            self.points.popleft()

    @property
    def rate(self) -> float:
        """Units per second of late; 0 while nobody can tell."""
        if len(self.points) < 2:
            return 0.0
        (first_at, first), (last_at, last) = self.points[0], self.points[-1]
        return (last - first) / (last_at - first_at) if last_at > first_at else 0.0


@dataclass
class BuildState:
    """One build as its events tell it. Times are seconds since the epoch."""

    id: str
    name: str = ""
    version: str = ""
    template: str = ""
    started: float = 0.0
    steps: tuple[str, ...] = ()
    stages: list[Stage] = field(default_factory=list)
    step: events.StepStarted | None = None
    done: list[int] = field(default_factory=list)  # the numbers of the steps that are done, cached ones too
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
        """Take one event of this build in."""
        match event:
            case events.BuildStarted():
                self.name, self.version, self.template = event.name, event.version, event.template
                self.started, self.steps = event.at, event.steps
            case events.StageStarted():
                self.stages.append(Stage(event.stage, event.detail, event.at))
                self.transfer, self.last_line, self.failed_stage = None, "", ""  # one that failed before this was survived
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
                self._take_line(event)
            case events.Progress():
                self._take_progress(event)
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

    def _take_line(self, event: events.Output) -> None:
        line = clean(event.line)
        (self.console if event.stream == "console" else self.tail).append(line)
        if line.strip():
            self.last_line = line.strip()

    def _take_progress(self, event: events.Progress) -> None:
        if self.transfer is None or self.transfer.label != event.label:
            self.transfer = Transfer(event.label, event.unit)
        self.transfer.move(event.at, event.done, event.total)
        if event.total and event.done >= event.total:
            self.transfer = None


class Builds:
    """All builds of one run, in the order in which they were first heard of."""

    def __init__(self) -> None:
        self.by_id: dict[str, BuildState] = {}

    def apply(self, event: Event) -> BuildState | None:
        """Take an event in; the state of its build, or None for one outside of any."""
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
        """Whether lines need a build's name in front of them."""
        return len(self.by_id) > 1
