"""An output stream with its capabilities: whether it is a terminal, its width, colours, and the characters that it can show."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

from baker.render.text import ASCII, UNICODE, Glyphs

# The sixteen colours that every theme, light or dark, defines to be readable (ECMA-48 SGR).
_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_MIN_COLUMNS = 20


@dataclass(frozen=True)
class Terminal:
    """An output stream. `width` is None when lines have no limit (a file, a pipe)."""

    stream: TextIO
    interactive: bool = False  # a terminal whose cursor can be moved
    color: bool = False
    glyphs: Glyphs = ASCII
    columns: int | None = None

    @classmethod
    def of(cls, stream: TextIO, env: Mapping[str, str], *, no_color: bool = False) -> Terminal:
        """Describe `stream`, with regard to TERM, NO_COLOR, CLICOLOR, CLICOLOR_FORCE and COLUMNS in the environment."""
        tty = _is_terminal(stream)
        capable = env.get("TERM", "") not in ("", "dumb", "unknown")
        return cls(
            stream=stream,
            interactive=tty and capable,
            color=not no_color and _use_color(tty and capable, env),
            glyphs=UNICODE if _can_show(stream, UNICODE) and (capable or not tty) else ASCII,
            columns=_columns(env) if tty else None,
        )

    @property
    def width(self) -> int | None:
        """The current width in cells, which changes when a window is resized."""
        if self.columns is not None:
            return self.columns
        if not _is_terminal(self.stream):
            return None
        try:
            return max(os.get_terminal_size(self.stream.fileno()).columns, _MIN_COLUMNS)
        except (OSError, ValueError):
            return 80

    def paint(self, text: str, *styles: str) -> str:
        """`text` in the named styles (bold, dim, red, green, yellow, cyan) when colours are enabled; otherwise unchanged."""
        if not self.color or not text or not any(styles):
            return text
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"

    def line(self, text: str = "") -> None:
        """Write and flush one line."""
        self.stream.write(text + "\n")
        self.stream.flush()


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:
        return False  # the stream is closed


def _use_color(capable: bool, env: Mapping[str, str]) -> bool:
    if env.get("NO_COLOR"):
        return False
    if env.get("CLICOLOR_FORCE", "0") != "0":
        return True
    return capable and env.get("CLICOLOR") != "0"


def _can_show(stream: TextIO, glyphs: Glyphs) -> bool:
    try:
        "".join(vars(glyphs).values()).encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _columns(env: Mapping[str, str]) -> int | None:
    text = env.get("COLUMNS", "")
    return max(int(text), _MIN_COLUMNS) if text.isdigit() and int(text) else None
