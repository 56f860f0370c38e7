"""The choice of a display: live terminal, plain lines, JSON lines, or quiet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from baker.cli.app import App
from baker.core.events import Event
from baker.render.terminal import Terminal

if TYPE_CHECKING:
    from baker.render.live import Live


class Display(Protocol):
    """A sink that can be closed."""

    def emit(self, event: Event) -> None: ...
    def close(self) -> None: ...


@contextmanager
def display(app: App, *, json: bool = False, on_error_stream: bool = False) -> Iterator[Display]:
    """The display for the streams and options of `app`, closed at the end. `on_error_stream`: stdout is reserved for the result."""
    shown = _make(app, app.err if on_error_stream else app.out, json)
    try:
        yield shown
    finally:
        shown.close()


def _make(app: App, out: Terminal, json: bool) -> Display:
    if json:
        from baker.render.jsonlines import JsonLines

        return JsonLines(out.stream)
    if app.quiet:
        from baker.render.quiet import Quiet

        return Quiet(out, app.err)
    if out.interactive:
        return _live(app, out)
    from baker.render.plain import Plain

    return Plain(out, app.err, debug=app.debug)


def _live(app: App, out: Terminal) -> Live:
    from baker.render.live import Live

    return Live(out, app.err, verbose=app.verbose, debug=app.debug)
