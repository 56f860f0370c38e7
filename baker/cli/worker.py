"""The worker process of a build: `python -m baker.cli.worker` reads one JSON request from stdin and writes events as JSON lines to stdout.

The request is not in the argument list, because variables may be secret.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from baker.api import Baker
from baker.core import crash_reports
from baker.core.errors import BakeError, Interrupted
from baker.core.events import BuildFinished, Event
from baker.core.home import Home
from baker.plan.requests import BuildRequest


class Lines:
    """A sink that writes events to stdout. A closed pipe means that the parent has died: then the worker stops itself with SIGTERM."""

    def __init__(self) -> None:
        self.ended = False

    def emit(self, event: Event) -> None:
        self.ended = self.ended or isinstance(event, BuildFinished)
        try:
            sys.stdout.write(json.dumps(event.to_json()) + "\n")
            sys.stdout.flush()
        except (BrokenPipeError, ValueError):
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - open until the process ends
            os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """Run the build of the request on stdin, and return the exit code of its error, or 0."""

    def interrupt(number: int, _: object) -> None:
        raise Interrupted(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    lines = Lines()
    name, request, home = "", dict[str, Any](), None
    try:
        request = json.load(sys.stdin)
        home = Home(**{key: Path(value) for key, value in request.pop("home").items()})
        name = str(request.pop("select"))
        with Baker(home, sink=lines) as baker:
            baker.build_here(BuildRequest.from_json(request), name)
    except (BakeError, Interrupted) as error:
        if not lines.ended:
            lines.emit(BuildFinished(name=name, status="failed", seconds=0.0, error=str(error), code=error.code))
        return error.exit_code
    except Exception as error:  # a bug: the parent sees only the events of this process
        lines.emit(BuildFinished(name=name, status="failed", seconds=0.0, error=_crash(error, request, home), code="internal"))
        return BakeError.exit_code
    return 0


def _crash(error: Exception, request: Mapping[str, Any], home: Home | None) -> str:
    """The message of an internal error in one line; the traceback goes to a file."""
    templates = [path] if isinstance(path := request.get("path"), str) else []
    hidden = crash_reports.possible_secrets(request.get("variables", {}), request.get("var_files", ()), templates)
    text = hidden.mask("".join(traceback.format_exception(error)))
    kept = crash_reports.keep(text, home.state) if home else None
    summary = hidden.mask(f"internal error: {type(error).__name__}: {error}".splitlines()[0])
    return f"{summary}\nthe traceback is in {kept}; please report it as a bug" if kept else f"{summary}\n{text}"


if __name__ == "__main__":
    sys.exit(main())
