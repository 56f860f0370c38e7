"""Pictures of a terminal: the output of a real command, as it is on the screen at its end.

`python -m docs.figures.terminal NAME COMMAND...` runs the command on a terminal of its own, 100 columns wide, keeps what it wrote in
docs/figures/NAME.ansi, and draws docs/figures/NAME.svg from that. `python -m docs.figures.terminal` draws all pictures again.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.sax.saxutils import escape

from docs.figures.svg import page

HERE = Path(__file__).resolve().parent
COLUMNS, ROWS = 100, 50
CHARACTER, LINE, MARGIN = 7.83, 18, 20  # pixels, at a font size of 13
TOKEN = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.|([\x00-\x1f])|([^\x00-\x1f\x1b]+)", re.DOTALL)


def record(command: Sequence[str]) -> tuple[str, int]:
    """Run a command on a terminal of its own. What it wrote there, after the line that one would have typed, and its exit code."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
    with subprocess.Popen(list(command), stdin=its, stdout=its, stderr=its, env=environment, start_new_session=True) as process:
        os.close(its)
        written = bytearray()
        while chunk := _read(ours):
            written += chunk
    os.close(ours)
    typed = shlex.join([Path(command[0]).name, *command[1:]])
    return f"$ {typed}\r\n" + written.decode(errors="replace"), process.returncode


def _read(terminal: int) -> bytes:
    """The next bytes; none at the end, where Linux says EIO."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


@dataclass(frozen=True)
class Style:
    """How characters look. `colour` is one of the eight of a terminal, None the usual one."""

    bold: bool = False
    dim: bool = False
    italic: bool = False
    colour: int | None = None

    def then(self, code: int) -> Style:
        """After one number of an SGR sequence; numbers that are not for us change nothing."""
        changes: dict[int, dict[str, object]] = {1: {"bold": True}, 2: {"dim": True}, 3: {"italic": True}, 23: {"italic": False}}
        changes |= {22: {"bold": False, "dim": False}, 39: {"colour": None}}
        changes |= {base + number: {"colour": number} for base in (30, 90) for number in range(8)}
        return Style() if code == 0 else replace(self, **changes.get(code, {}))  # type: ignore[arg-type]

    @property
    def kind(self) -> str:
        """Its classes in the picture."""
        names = [name for name in ("bold", "italic") if getattr(self, name)]
        return " ".join([*names, *([f"c{self.colour}"] if self.colour is not None else ["soft"] if self.dim else [])])


@dataclass
class Screen:
    """A terminal as far as progress displays need one: colours, moving up, erasing. Lines never scroll away."""

    lines: list[dict[int, tuple[str, Style]]] = field(default_factory=lambda: [{}])
    row: int = 0
    column: int = 0
    style: Style = Style()

    def write(self, text: str) -> None:
        for match in TOKEN.finditer(text):
            parameters, command, control, characters = match.groups()
            if command:
                self._command(command, [int(number) for number in parameters.split(";") if number.isdigit()])
            elif control == "\r":
                self.column = 0
            elif control == "\n":
                self._down(1)
            for character in characters or "":
                self.lines[self.row][self.column] = (character, self.style)
                self.column += 1

    def _command(self, command: str, numbers: list[int]) -> None:
        first = numbers[0] if numbers else 0
        line = self.lines[self.row]
        if command == "m":
            for number in numbers or [0]:
                self.style = self.style.then(number)
        elif command == "A":
            self.row = max(self.row - max(first, 1), 0)
        elif command == "B":
            self._down(max(first, 1))
        elif command == "C":
            self.column += max(first, 1)
        elif command == "D":
            self.column = max(self.column - max(first, 1), 0)
        elif command == "G":
            self.column = max(first, 1) - 1
        elif command in "KJ":
            for column in [column for column in line if first == 2 or (column < self.column) == (first == 1)]:
                del line[column]
            if command == "J":
                del self.lines[self.row + 1 :]

    def _down(self, lines: int) -> None:
        self.row += lines
        self.lines += [{} for _ in range(self.row + 1 - len(self.lines))]


def draw(written: str, *, most: int = 60) -> str:
    """The picture of what a command wrote: the last `most` lines of it."""
    screen = Screen()
    screen.write(written)
    lines = screen.lines
    while lines and not lines[-1]:
        lines.pop()
    shown = lines if len(lines) <= most else [lines[0], *lines[-(most - 1) :]]
    body = []
    for number, line in enumerate(shown):
        spans = "".join(_span(text, style) for text, style in _runs(line))
        body.append(f'<text x="{MARGIN}" y="{46 + LINE * number}" font-size="13" class="mono" xml:space="preserve">{spans}</text>')
    width = max([max(line, default=0) + 1 for line in shown], default=0)
    typed = written.partition("\n")[0].strip().removeprefix("$ ")
    dots = [f'<circle cx="{MARGIN + 6 + 18 * number}" cy="20" r="5.5" class="line"/>' for number in range(3)]
    return page(round(max(width, 60) * CHARACTER) + 2 * MARGIN, 46 + LINE * len(shown), typed, [*dots, *body])


def _runs(line: dict[int, tuple[str, Style]]) -> list[tuple[str, Style]]:
    """The characters of a line, those of one look together."""
    runs: list[tuple[str, Style]] = []
    for column in range(max(line, default=-1) + 1):
        character, style = line.get(column, (" ", Style()))
        if runs and runs[-1][1] == style:
            runs[-1] = (runs[-1][0] + character, style)
        else:
            runs.append((character, style))
    return runs


def _span(text: str, style: Style) -> str:
    return f'<tspan class="{style.kind}">{escape(text)}</tspan>' if style.kind else escape(text)


def main(arguments: list[str]) -> int:
    code = 0
    if arguments:
        name, *command = arguments
        written, code = record(command)
        (HERE / f"{name}.ansi").write_text(written, newline="")
    for path in sorted(HERE.glob("*.ansi")):
        path.with_suffix(".svg").write_text(draw(path.read_bytes().decode()))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
