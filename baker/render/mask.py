"""A sink that lets no secret through to the sink behind it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from baker.events import Event, Sink
from baker.secrets import Secrets


class Masked:
    """Passes every event on with each form of each secret replaced by `***`, whichever field it stands in."""

    def __init__(self, sink: Sink, secrets: Secrets) -> None:
        self.sink = sink
        self.secrets = secrets

    def emit(self, event: Event) -> None:
        self.sink.emit(masked(event, self.secrets))


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
