"""A sink that lets no secret through to the sink behind it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from typing import Any

from baker.core.events import Event, Message, Output, Progress, Sink
from baker.core.secret_lines import SecretLines
from baker.core.secrets import Secrets


class Masked:
    """Passes every event on with each form of each secret replaced by `***`, whichever field it stands in.

    Output comes line by line, so a line that may be part of a secret of several lines waits for the next one of its stream, at the
    longest until something other than output, progress and messages happens.
    """

    def __init__(self, sink: Sink, secrets: Secrets) -> None:
        self.sink = sink
        self.secrets = secrets
        self._streams: dict[tuple[str, str, str], _Stream] = {}
        self._lock = threading.RLock()  # reentrant: a signal handler may emit while this very thread does
        self._several_lines = bool(secrets.lines())

    def emit(self, event: Event) -> None:
        if not self._several_lines:
            self.sink.emit(masked(event, self.secrets))
            return
        with self._lock:
            if isinstance(event, Output):
                stream = self._streams.setdefault((event.build, event.step, event.stream), _Stream(self.secrets.lines()))
                self._emit(stream.take(event))
                return
            if not isinstance(event, Progress | Message):
                for stream in self._streams.values():
                    self._emit(stream.end())
            self.sink.emit(masked(event, self.secrets))

    def _emit(self, events: list[Output]) -> None:
        for event in events:
            self.sink.emit(masked(event, self.secrets))


class _Stream:
    """The output of one command: its events in their order, without the lines of secrets."""

    def __init__(self, lines: SecretLines) -> None:
        self.lines = lines
        self.waiting: list[Output] = []

    def take(self, event: Output) -> list[Output]:
        self.waiting.append(event)
        return self._decided(self.lines.feed(event.line))

    def end(self) -> list[Output]:
        return self._decided(self.lines.flush())

    def _decided(self, lines: list[str]) -> list[Output]:
        decided, self.waiting = self.waiting[: len(lines)], self.waiting[len(lines) :]
        return [dataclasses.replace(event, line=line) for event, line in zip(decided, lines, strict=True)]


def masked(event: Event, secrets: Secrets) -> Event:
    """`event` without secrets; the same object where it has none."""
    if not secrets.values:
        return event
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        hidden = _masked_value(value, secrets)
        if hidden != value:
            changes[field.name] = hidden
    return dataclasses.replace(event, **changes) if changes else event


def _masked_value(value: Any, secrets: Secrets) -> Any:
    if isinstance(value, str):
        return secrets.mask(value)
    if isinstance(value, (tuple, list)):
        return type(value)(_masked_value(item, secrets) for item in value)
    if isinstance(value, Mapping):
        return {_masked_value(key, secrets): _masked_value(item, secrets) for key, item in value.items()}
    return value
