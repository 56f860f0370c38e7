"""The context of a verb: streams, common options, and access to the Python API."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from baker.core.events import Message, Null, Sink
from baker.core.home import Home
from baker.render.terminal import Terminal
from baker.render.text import table

if TYPE_CHECKING:
    from baker.api import Baker
    from baker.build.services import Interaction

MakeBaker = Callable[..., "Baker"]  # called like baker.api.Baker: (home, *, sink, interaction, env)


def _real_baker(home: Home, *, sink: Sink, interaction: Interaction | None, env: Mapping[str, str]) -> Baker:
    from baker.api import Baker

    return Baker(home, sink=sink, interaction=interaction, env=env)


@dataclass
class App:
    """One run of the command line."""

    home: Home
    env: Mapping[str, str]
    out: Terminal
    err: Terminal
    stdin: TextIO = field(default_factory=lambda: sys.stdin)
    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    make: MakeBaker = _real_baker
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    stack: ExitStack = field(default_factory=ExitStack)
    sink: Sink = field(default_factory=Null)
    documents: int = 0  # number of JSON documents written to stdout

    def baker(self, sink: Sink | None = None, interaction: Interaction | None = None) -> Baker:
        """The Python API, closed at the end of the run. `sink` receives its events, and the warnings of `warn`."""
        self.sink = sink or self.sink
        return self.stack.enter_context(self.make(self.home, sink=self.sink, interaction=interaction, env=self.env))

    def line(self, text: str = "") -> None:
        """Print a line of the result to stdout."""
        self.out.line(text)

    def lines(self, texts: list[str]) -> None:
        for text in texts:
            self.out.line(text)

    def table(
        self, headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = (), indent: str = "", style: str = "bold"
    ) -> list[str]:
        """The lines of a table that fits stdout."""
        width = self.out.width - len(indent) if self.out.width else None
        lines = table(
            headers, rows, width=width, right=right, ellipsis=self.out.glyphs.ellipsis, paint=lambda text: self.out.paint(text, style)
        )
        return [(indent + line).rstrip() for line in lines]

    def note(self, text: str) -> None:
        """Print a remark to stderr; nothing with --quiet."""
        if not self.quiet:
            self.err.line(text)

    def json(self, value: Any) -> None:
        """Print a JSON document to stdout."""
        self.documents += 1
        self.out.line(json.dumps(value, indent=2, ensure_ascii=not _is_utf8(self.out.stream), default=str))

    def warn(self, text: str) -> None:
        """Report something about the run itself, such as an interrupt: through the active display, or to stderr."""
        if isinstance(self.sink, Null):
            self.err.line(f"bake: {text}")
        else:
            self.sink.emit(Message(text=text, level="warning"))

    def stopping(self) -> None:
        """Report, while a display is active, that a signal has started the cleanup."""
        if not isinstance(self.sink, Null):
            self.warn("interrupted: cleaning up")

    @property
    def interactive(self) -> bool:
        """Whether questions can be asked: stdin and stderr are terminals."""
        return self.stdin.isatty() and self.err.stream.isatty()


def _is_utf8(stream: TextIO) -> bool:
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"


def home_and_env(directory: os.PathLike[str] | None, env: Mapping[str, str]) -> tuple[Home, Mapping[str, str]]:
    """The home that `--home` (`directory`) or the environment names, and the environment that says so too."""
    if directory is not None:
        env = {**env, "BAKE_HOME": os.fspath(directory)}
    return Home.from_environment(env), env
