"""Sizes and durations as people write them. Importing this module does not import pydantic: a model that uses the types does.

`Size` is bytes: 2GiB, 512MiB, 10GB, 1.5TiB or a whole number. `Duration` is seconds: 90s, 10m, 1h30m, 1d, 250ms or a number.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

_FACTORS = {"B": 1} | {
    unit: factor
    for power, letter in enumerate("KMGT", start=1)
    for unit, factor in ((f"{letter}iB", 1024**power), (f"{letter}B", 1000**power))
}
_FACTORS["kB"] = 1000
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)?(B|[KMGT]iB|[kKMGT]B)?$"
DURATION_PATTERN = r"^(?=.)([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+(\.[0-9]+)?s)?([0-9]+ms)?$"
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)")
_DURATION = re.compile(DURATION_PATTERN)
_PART = re.compile(r"([0-9.]+)(ms|[dhms])")
_LONGEST = 40  # characters; a longer text is neither a size nor a duration


def parse_size(value: object) -> int:
    """Bytes from "2GiB" (powers of 1024), "10GB" (powers of 1000) or a number of bytes. ValueError says what would be right."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("not a size: want e.g. 2GiB, 512MiB, or a number of bytes")
    if isinstance(value, int):
        size = value
    else:
        match = _SIZE.fullmatch(value.strip()) if len(value) <= _LONGEST else None
        if match is None or (match[2] and match[2] not in _FACTORS):
            raise ValueError(f'"{value[:_LONGEST]}" is not a size: want e.g. 2GiB, 512MiB, or a number of bytes')
        exact = float(match[1]) * _FACTORS[match[2] or "B"] if "." in match[1] else int(match[1]) * _FACTORS[match[2] or "B"]
        size = round(exact)
    if size <= 0:
        raise ValueError("a size must be more than 0")
    return size


def parse_duration(value: object) -> float:
    """Seconds from "90s", "10m", "1h30m", "1d", "250ms" or a number of seconds. ValueError says what would be right."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("not a time: want e.g. 90s, 10m, 1h30m, 1d, or a number of seconds")
    if isinstance(value, int | float):
        seconds = float(value)
    else:
        text = value.strip()
        if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", text):
            return float(text)
        if len(text) > _LONGEST or not _DURATION.match(text):
            raise ValueError(f'"{value[:_LONGEST]}" is not a time: want e.g. 90s, 10m, 1h30m, 1d, or a number of seconds')
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    if not 0 <= seconds < 1e10:
        raise ValueError("a time must be 0 or more, and less than 300 years")
    return seconds


@dataclass(frozen=True)
class Parsed:
    """Metadata for Annotated[...] from which pydantic makes its schemas: the value is parsed, and then its type is checked."""

    parse: Callable[[object], Any]
    title: str
    pattern: str
    examples: tuple[str, ...]
    number: str  # the JSON type of a value without a unit

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(self.parse, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        text = {"type": "string", "pattern": self.pattern, "examples": list(self.examples)}
        return {"anyOf": [text, {"type": self.number, "minimum": 0}], "title": self.title}


Size = Annotated[int, Parsed(parse_size, "size", SIZE_PATTERN, ("2GiB", "512MiB", "10GB"), "integer")]
Duration = Annotated[float, Parsed(parse_duration, "duration", DURATION_PATTERN, ("90s", "10m", "1h30m", "1d"), "number")]
