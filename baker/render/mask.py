"""A sink that removes secrets from events before it passes them on."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from typing import Any

from baker.core.events import Event, Message, Output, Progress, Sink
from baker.core.secret_lines import SecretLines
from baker.core.secrets import Secrets


class MaskingSink:
    """Passes events on to `sink` with each form of each secret replaced by `***`, in all fields.

    Output arrives line by line. A line that may be part of a secret of several lines is delayed until the following lines of its
    stream decide that, at the latest until an event other than output, progress or a message.
    """

    def __init__(self, sink: Sink, secrets: Secrets) -> None:
        self.sink = sink
        self.secrets = secrets
        self._streams: dict[tuple[str, str, str], _Stream] = {}
        self._lock = threading.RLock()  # reentrant: a signal handler may emit while this thread holds it
        self._has_multiline_secrets = bool(secrets.lines())

    def emit(self, event: Event) -> None:
        if not self._has_multiline_secrets:
            self.sink.emit(mask_event(event, self.secrets))
            return
        with self._lock:
            if isinstance(event, Output):
                stream = self._streams.setdefault((event.build, event.step, event.stream), _Stream(self.secrets.lines()))
                self._emit(stream.feed(event))
                return
            if not isinstance(event, Progress | Message):
                for stream in self._streams.values():
                    self._emit(stream.end())
            self.sink.emit(mask_event(event, self.secrets))

    def _emit(self, events: list[Output]) -> None:
        for event in events:
            self.sink.emit(mask_event(event, self.secrets))


class _Stream:
    """The output of one command, with the lines that are delayed."""

    def __init__(self, lines: SecretLines) -> None:
        self.lines = lines
        self.waiting: list[Output] = []

    def feed(self, event: Output) -> list[Output]:
        self.waiting.append(event)
        return self._release(self.lines.feed(event.line))

    def end(self) -> list[Output]:
        return self._release(self.lines.flush())

    def _release(self, lines: list[str]) -> list[Output]:
        released, self.waiting = self.waiting[: len(lines)], self.waiting[len(lines) :]
        return [dataclasses.replace(event, line=line) for event, line in zip(released, lines, strict=True)]


def mask_event(event: Event, secrets: Secrets) -> Event:
    """A copy of `event` without secrets; the same object when it has none."""
    if not secrets.values:
        return event
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        hidden = _mask_value(value, secrets)
        if hidden != value:
            changes[field.name] = hidden
    return dataclasses.replace(event, **changes) if changes else event


def _mask_value(value: Any, secrets: Secrets) -> Any:
    if isinstance(value, str):
        return secrets.mask(value)
    if isinstance(value, (tuple, list)):
        return type(value)(_mask_value(item, secrets) for item in value)
    if isinstance(value, Mapping):
        return {_mask_value(key, secrets): _mask_value(item, secrets) for key, item in value.items()}
    return value
