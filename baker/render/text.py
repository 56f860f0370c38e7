"""Formatting of text for users: sizes, times, tables, and lines from a guest, made safe to show."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

# Escape sequences as ECMA-48 defines them: CSI, OSC (ended by BEL or ST), other string sequences, two-character escapes.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[PX^_][^\x1b]*(?:\x1b\\)?|\x1b[ -/]*[0-~]")
# C0 and C1 controls, and characters that change the direction of text (Unicode Bidirectional Algorithm, explicit formatting).
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_MIN_COLUMN_CELLS = 8  # of a shortened table column


@dataclass(frozen=True)
class Glyphs:
    """The special characters of the output. ASCII has a replacement for each, for terminals that cannot show them."""

    ok: str = "✓"
    bad: str = "✗"
    warn: str = "!"
    skip: str = "-"
    bar: str = "│"
    fork: str = "├── "
    corner: str = "└── "
    pipe: str = "│   "
    ellipsis: str = "…"
    full: str = "━"
    empty: str = "─"
    dot: str = "·"
    arrow: str = "→"
    spinner: str = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


UNICODE = Glyphs()
ASCII = Glyphs(
    ok="+", bad="x", bar="|", fork="|-- ", corner="`-- ", pipe="|   ", ellipsis="...",
    full="#", empty=".", dot="-", arrow="->", spinner="|/-\\",
)  # fmt: skip


def clean(line: str) -> str:
    """Remove from a line everything that moves the cursor, or changes colours or the direction of text.

    Text that a carriage return overwrites is dropped.
    """
    line = _ESCAPES.sub("", line).rstrip("\r\n")
    if "\r" in line:
        line = next((part for part in reversed(line.split("\r")) if part.strip()), "")
    return _CONTROLS.sub("", line.expandtabs(4))


def size(count: float) -> str:
    """Format a number of bytes: "312 MiB", "1.4 GiB"."""
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """Format a number of seconds: "0.4s", "12s", "1m02s", "2h05m"."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f}s"
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded}s"
    if rounded < 3600:
        return f"{rounded // 60}m{rounded % 60:02d}s"
    return f"{rounded // 3600}h{rounded % 3600 // 60:02d}m"


def when(moment: str) -> datetime | None:
    """Parse an ISO 8601 time, in UTC without another zone; None when it is invalid."""
    try:
        parsed = datetime.fromisoformat(moment)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def ago(moment: str, now: datetime) -> str:
    """Format an ISO 8601 time relative to `now`: "3 minutes ago"; returns the text itself when it is no time."""
    then = when(moment)
    if then is None:
        return moment
    seconds = (now - then).total_seconds()
    if seconds < 0:
        return "in the future"
    for unit, length in (("year", 31_557_600), ("month", 2_629_800), ("week", 604_800), ("day", 86_400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // length)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def short(digest: str, length: int = 12) -> str:
    """The first `length` characters of a digest or key, without the name of the algorithm."""
    return digest.rpartition(":")[2][:length]


def plural(count: int, noun: str) -> str:
    """The count and the noun, which gets an "s" unless the count is 1: "3 steps"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def cells(text: str) -> int:
    """The width of `text` in terminal cells."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, limit: int, ellipsis: str = "…") -> str:
    """Shorten `text` to at most `limit` cells; a shortened text ends with the ellipsis."""
    if cells(text) <= limit:
        return text
    start, used, room = [], 0, limit - len(ellipsis)
    for char in text:
        used += cells(char)
        if used > room:
            break
        start.append(char)
    return ("".join(start).rstrip() + ellipsis)[: max(limit, 0)]


def pad(text: str, width: int, *, right: bool = False) -> str:
    """Fill `text` up to `width` cells with spaces, at its left when `right` aligns it at the right."""
    fill = " " * max(width - cells(text), 0)
    return fill + text if right else text + fill


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int | None = None,
    right: Collection[int] = (),
    ellipsis: str = "…",
    paint: Callable[[str], str] = str,
) -> list[str]:
    """Format a table: a header line and one line per row, two spaces between columns, without rules.

    The columns whose indexes are in `right` are right-aligned; `paint` colours the headers. If the table is wider than `width` cells,
    its widest columns are shortened. If that does not suffice, each row becomes a block with one line per cell.
    """
    texts = [list(headers), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(cells(row[column]) for row in texts) for column in range(len(headers))]
    while width is not None and sum(widths) + 2 * (len(widths) - 1) > width and max(widths) > _MIN_COLUMN_CELLS:
        widths[widths.index(max(widths))] -= 1
    if width is not None and sum(widths) + 2 * (len(widths) - 1) > width:
        return _stacked(texts, width, ellipsis, paint)
    lines = [
        "  ".join(pad(cut(cell, widths[i], ellipsis), widths[i], right=i in right) for i, cell in enumerate(row)).rstrip() for row in texts
    ]
    return [paint(lines[0]), *lines[1:]]


def _stacked(texts: Sequence[Sequence[str]], width: int, ellipsis: str, paint: Callable[[str], str]) -> list[str]:
    """The rows of a table as blocks of lines "HEADER  cell" without empty cells, with an empty line between two rows."""
    headers, *rows = texts
    column = max(map(cells, headers))
    blocks = [
        [
            f"{paint(pad(header, column))}  {cut(cell, width - column - 2, ellipsis)}"
            for header, cell in zip(headers, row, strict=True)
            if cell
        ]
        for row in rows
    ]
    return [line for number, block in enumerate(blocks) for line in ([""] if number else []) + block]


def fields(pairs: Sequence[tuple[str, str]], indent: str = "  ", width: int = 0) -> list[str]:
    """Format pairs as lines "name   value", with the values in one column; pairs without a value are left out."""
    shown = [(name, value) for name, value in pairs if value]
    column = max([width, *(cells(name) for name, _ in shown)], default=0)
    lines: list[str] = []
    for name, value in shown:
        first, *others = value.splitlines() or [""]
        lines.append(f"{indent}{pad(name, column)}  {clean(first)}".rstrip())
        lines += [f"{indent}{' ' * column}  {clean(other)}" for other in others]
    return lines
