"""Events of builds, as values. A sink turns them into a live display, plain lines, JSON lines or a log file.

Stages and verbs only emit events; only a sink prints.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """An event of the build `build` (a build id, or "" outside of builds) at the time `at` (seconds since the epoch)."""

    build: str = ""
    at: float = field(default_factory=time.time)

    def to_json(self) -> dict[str, Any]:
        """The event as a JSON object: `event` is its type in snake_case, the other keys are its fields."""
        return {"event": _snake(type(self).__name__), **dataclasses.asdict(self)}


@dataclass(frozen=True, kw_only=True)
class BuildStarted(Event):
    template: str  # path
    name: str
    version: str
    steps: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TemplateRejected(Event):
    """Templates have problems, so nothing is built. `problems`: `file`, `line`, `column`, `code`, `message` and `hint` of each."""

    problems: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Planned(Event):
    """The plan of a build. `steps`: the `index`, the `key` and the `inputs` of each, from which the key is made (secrets as hashes)."""

    fingerprint: str
    source: dict[str, Any]  # kind, title, digest, parent, pins
    steps: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class StageStarted(Event):
    stage: str  # load, resolve, plan, launch, provision, seal, capture, verify, record, ...
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class StageFinished(Event):
    stage: str
    seconds: float
    ok: bool = True
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class StepStarted(Event):
    index: int  # from 1
    total: int
    step: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class StepFinished(Event):
    index: int
    step: str
    seconds: float
    ok: bool
    exit_code: int | None = None
    cached: bool = False
    attempts: int = 1
    ran: float = 0.0  # when it ran, seconds since the epoch; for a cached step, when it ran for its layer


@dataclass(frozen=True, kw_only=True)
class Output(Event):
    """A line of output of a command of the build, in the guest or on the host, or of the guest's console."""

    line: str
    stream: Literal["stdout", "stderr", "console"] = "stdout"
    step: str = ""


@dataclass(frozen=True, kw_only=True)
class Progress(Event):
    """The progress of long work. `total` is 0 when it is not known."""

    label: str
    done: int
    total: int
    unit: Literal["bytes", "items"] = "bytes"


@dataclass(frozen=True, kw_only=True)
class Message(Event):
    text: str
    level: Level = "info"
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class TestFinished(Event):
    """The end of one test of the verification. `outcome` is pytest's term."""

    __test__ = False  # not a pytest class

    name: str
    outcome: Literal["passed", "failed", "skipped", "error"]
    seconds: float
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class BuildFinished(Event):
    """The end of a build. `status`: "stopped" after the step of `--until`; "tried" for a build that leaves no image. `logged`: whether the
    catalog has a record of it with its log."""

    name: str
    status: Literal["built", "unchanged", "stopped", "tried", "failed", "interrupted"]
    seconds: float
    image: str = ""
    version: str = ""
    digest: str = ""
    fingerprint: str = ""
    size: int = 0
    verified: bool = False
    timings: dict[str, float] = field(default_factory=dict)
    error: str = ""
    code: str = ""  # of the error, see docs/errors.md
    logged: bool = True


def from_json(value: dict[str, Any]) -> Event:
    """The event of a JSON object that `to_json` made. ValueError for an event that this version does not know."""
    kind = {_snake(kind.__name__): kind for kind in Event.__subclasses__()}.get(str(value.get("event")))
    if kind is None:
        raise ValueError(f"unknown event {value.get('event')!r}")
    fields: dict[str, Any] = {name: tuple(item) if isinstance(item, list) else item for name, item in value.items() if name != "event"}
    return kind(**fields)


def _snake(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")


class Sink(Protocol):
    """Receives events. It must not raise: a broken terminal must not fail a build."""

    def emit(self, event: Event) -> None: ...


class Null:
    """A sink that drops all events."""

    def emit(self, event: Event) -> None:
        pass


class Memory:
    """A sink that stores all events, or those of one type, for callers of the Python API and for tests."""

    def __init__(self, only: type[Event] = Event) -> None:
        self.only = only
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        if isinstance(event, self.only):
            self.events.append(event)


class Tee:
    """A sink that forwards each event to several sinks."""

    def __init__(self, *sinks: Sink) -> None:
        self.sinks = sinks

    def emit(self, event: Event) -> None:
        for sink in self.sinks:
            sink.emit(event)


@dataclass(frozen=True)
class Reporter:
    """A sink together with the id of the build that reports to it. Every stage gets one."""

    sink: Sink
    build: str = ""

    def info(self, text: str) -> None:
        self.sink.emit(Message(build=self.build, text=text))

    def debug(self, text: str) -> None:
        self.sink.emit(Message(build=self.build, text=text, level="debug"))

    def warn(self, text: str, hint: str = "") -> None:
        self.sink.emit(Message(build=self.build, text=text, level="warning", hint=hint))

    def output(self, line: str, *, stream: Literal["stdout", "stderr", "console"] = "stdout", step: str = "") -> None:
        self.sink.emit(Output(build=self.build, line=line, stream=stream, step=step))

    def progress(self, label: str, done: int, total: int, unit: Literal["bytes", "items"] = "bytes") -> None:
        self.sink.emit(Progress(build=self.build, label=label, done=done, total=total, unit=unit))

    @contextmanager
    def stage(self, stage: str, detail: str = "") -> Iterator[None]:
        """Report the start and the end of a stage, with its duration and whether it succeeded."""
        started = time.monotonic()
        self.sink.emit(StageStarted(build=self.build, stage=stage, detail=detail))
        ok = False
        try:
            yield
            ok = True
        finally:
            self.sink.emit(StageFinished(build=self.build, stage=stage, seconds=time.monotonic() - started, ok=ok))
