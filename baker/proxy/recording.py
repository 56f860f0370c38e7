"""Recording of the responses that the guests of one build received, so that they can be replayed without the network.

    DIRECTORY/index.jsonl        one response per line, in the order of the answers
    DIRECTORY/incomplete.jsonl   the same, when some responses could not be written
    DIRECTORY/bodies/ab/<64>     bodies by their SHA-256, as in the cache

A line: {"method", "url", "status", "headers": [[name, value], ...], "digest", "size", "at", "why"}; `at` in seconds since 1970. The
response to a request with credentials or a body may be confidential: it has no digest and no body, and `why` says so.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import BinaryIO

from baker.core.disk_space import host_error
from baker.core.errors import HostError
from baker.core.home import ensure
from baker.core.model import Fetched
from baker.proxy.store import IncomingFile, Store

INDEX, INCOMPLETE = "index.jsonl", "incomplete.jsonl"


class Recording:
    """A recording that is being written, in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = Store(directory)
        ensure(directory)
        self._index = (directory / INDEX).open("a")

    @contextmanager
    def incoming(self) -> Iterator[IncomingFile]:
        """Receive a body, to be passed to `add` when it is complete; removed at the end of the block otherwise."""
        with self.store.incoming() as incoming:
            yield incoming

    def add(self, fetched: Fetched, body: IncomingFile | Path | None) -> None:
        """Record a response that was answered now, with its body: a complete `IncomingFile`, or a file to link.

        HostError when the recording cannot be written.
        """
        self.copy(replace(fetched, at=round(time.time(), 3)), body)

    def close(self) -> None:
        self._index.close()

    def mark_incomplete(self) -> None:
        """Mark the recording as incomplete. This only renames a file, so that it succeeds on a full disk."""
        with suppress(OSError):
            self._index.close()
        mark_incomplete(self.directory)

    def copy(self, fetched: Fetched, body: IncomingFile | Path | None) -> None:
        """Record a response with the time that it already has; otherwise like `add`."""
        try:
            if isinstance(body, IncomingFile):
                body.move(self.store.body(body.digest))
            elif body is not None:
                self._link(body, self.store.body(fetched.digest))
            self._index.write(json.dumps(asdict(fetched)) + "\n")
            self._index.flush()
        except OSError as error:
            raise host_error(error, self.directory) from error

    def _link(self, source: Path, place: Path) -> None:
        ensure(place.parent)
        with suppress(FileExistsError):
            try:
                os.link(source, place)
            except FileExistsError:
                raise
            except OSError:  # the source is on another file system
                shutil.copyfile(source, place)


class Replay:
    """A recording that answers requests instead of the servers.

    Several answers to one request are replayed in their order; the last one is repeated.
    """

    def __init__(self, directory: Path) -> None:
        self.store = Store(directory)
        self._answers: dict[tuple[str, str], list[Fetched]] = {}
        self._reasons: dict[tuple[str, str], str] = {}
        for fetched in read(directory):
            if fetched.digest:
                self._answers.setdefault((fetched.method, fetched.url), []).append(fetched)
            else:
                self._reasons[fetched.method, fetched.url] = fetched.why

    def why(self, method: str, url: str) -> str:
        """The reason why the answer to a request was recorded without its body (": requested with credentials"), or ""."""
        reason = self._reasons.get((method, url))
        return f": {reason}" if reason else ""

    @contextmanager
    def find(self, method: str, url: str) -> Iterator[tuple[Fetched, BinaryIO] | None]:
        """The next answer to this request, with its body open; None when none is recorded."""
        answers = self._answers.get((method, url)) or (self._answers.get(("GET", url)) if method == "HEAD" else None)
        if not answers:
            yield None
            return
        fetched = answers.pop(0) if len(answers) > 1 else answers[0]
        try:
            body = self.store.body(fetched.digest).open("rb")
        except OSError:
            yield None
            return
        with body:
            yield fetched, body


def mark_incomplete(directory: Path) -> None:
    """Mark the recording in `directory`, which may be missing, as incomplete."""
    with suppress(OSError):
        ensure(directory)
        (directory / INDEX).touch()
    with suppress(OSError):
        (directory / INDEX).rename(directory / INCOMPLETE)


def incomplete(directory: Path) -> bool:
    """Whether a recording lacks responses because they could not be written."""
    return (directory / INCOMPLETE).exists()


def exists(directory: Path) -> bool:
    """Whether there is a recording, complete or not."""
    return (directory / INDEX).exists() or incomplete(directory)


def read(directory: Path) -> Iterator[Fetched]:
    """Yield the responses of a recording; none when there is none. HostError for an invalid line."""
    path = directory / (INCOMPLETE if incomplete(directory) else INDEX)
    if not path.exists():
        return
    with path.open() as file:
        for number, line in enumerate(file, start=1):
            try:
                value = json.loads(line)
                yield Fetched(**value | {"headers": tuple((str(name), str(text)) for name, text in value["headers"])})
            except (ValueError, TypeError, KeyError) as error:
                raise HostError(
                    f"{path}:{number}: the line is not a recorded response",
                    hint="the recording is damaged: build the image again",
                    code="proxy.invalid-recording",
                ) from error


def join(directories: Iterable[Path], destination: Path) -> None:
    """Join several recordings into one, in order; bodies are linked. HostError when it cannot be written.

    The result is incomplete when one of them is. Directories without a recording are skipped.
    """
    sources = [directory for directory in directories if exists(directory)]
    if not sources:
        return
    ensure(destination)
    recording = Recording(destination)
    for directory in sources:
        bodies = Store(directory)
        for fetched in read(directory):
            recording.copy(fetched, bodies.body(fetched.digest) if fetched.digest else None)
    if any(map(incomplete, sources)):
        recording.mark_incomplete()
    recording.close()
