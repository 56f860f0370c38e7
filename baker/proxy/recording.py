"""What guests fetched in one build, so that it can be fetched again without the network.

    DIRECTORY/index.jsonl        one response a line, in the order in which they were answered
    DIRECTORY/incomplete.jsonl   instead of that: the disk did not take all of the responses
    DIRECTORY/bodies/ab/<64>     bodies by their SHA-256, as in the cache

A line: {"method", "url", "status", "headers": [[name, value], ...], "digest", "size", "at"}; `at` in seconds since 1970. What was asked for
with credentials, or sent a body, has no digest but `"why"`: what comes back may be for nobody else's eyes.
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
from baker.proxy.store import Incoming, Store

INDEX, INCOMPLETE = "index.jsonl", "incomplete.jsonl"


class Recording:
    """A record that is being written. HostError, once, when the disk does not take it; the build goes on without."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = Store(directory)
        ensure(directory)
        self._index = (directory / INDEX).open("a")

    @contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """A body on its way in; `add` gives it its place."""
        with self.store.incoming() as incoming:
            yield incoming

    def add(self, fetched: Fetched, body: Incoming | Path | None) -> None:
        """Note a response answered now. Its body is a whole `Incoming`, or a file to be linked. HostError when the disk refuses."""
        self.copy(replace(fetched, at=round(time.time(), 3)), body)

    def close(self) -> None:
        self._index.close()

    def give_up(self) -> None:
        """Note that not all is on record. A full disk takes this: nothing is written."""
        with suppress(OSError):
            self._index.close()
        give_up(self.directory)

    def copy(self, fetched: Fetched, body: Incoming | Path | None) -> None:
        """`add` for what was answered at another time."""
        try:
            if isinstance(body, Incoming):
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
            except OSError:  # another file system
                shutil.copyfile(source, place)


class Replay:
    """A record that answers in the place of the servers: what was fetched several times, in the same order; the last answer stays."""

    def __init__(self, directory: Path) -> None:
        self.store = Store(directory)
        self._answers: dict[tuple[str, str], list[Fetched]] = {}
        self._why: dict[tuple[str, str], str] = {}
        for fetched in read(directory):
            if fetched.digest:
                self._answers.setdefault((fetched.method, fetched.url), []).append(fetched)
            else:
                self._why[fetched.method, fetched.url] = fetched.why

    def why(self, method: str, url: str) -> str:
        """Why the answer to a request has no body on record: ": asked for with credentials"; "" for one that never was made."""
        found = self._why.get((method, url))
        return f": {found}" if found else ""

    @contextmanager
    def find(self, method: str, url: str) -> Iterator[tuple[Fetched, BinaryIO] | None]:
        """The next answer to this request, with its body open; None when there is none on record."""
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


def give_up(directory: Path) -> None:
    """Note that the record in `directory` is not whole."""
    with suppress(OSError):
        ensure(directory)
        (directory / INDEX).touch()
    with suppress(OSError):
        (directory / INDEX).rename(directory / INCOMPLETE)


def incomplete(directory: Path) -> bool:
    """Whether responses are missing in a record because they could not be written."""
    return (directory / INCOMPLETE).exists()


def exists(directory: Path) -> bool:
    """Whether there is a record, whole or not."""
    return (directory / INDEX).exists() or incomplete(directory)


def read(directory: Path) -> Iterator[Fetched]:
    """The lines of an index; HostError for what is none."""
    path = directory / (INCOMPLETE if incomplete(directory) else INDEX)
    if not path.exists():
        return
    with path.open() as file:
        for number, line in enumerate(file, start=1):
            try:
                value = json.loads(line)
                yield Fetched(**value | {"headers": tuple((str(name), str(text)) for name, text in value["headers"])})
            except (ValueError, TypeError, KeyError) as error:
                raise HostError(f"{path}:{number}: this is no response on record") from error


def join(directories: Iterable[Path], destination: Path) -> None:
    """One record of several, in order; bodies are linked. It is as whole as they are. HostError when the disk refuses."""
    found = [directory for directory in directories if exists(directory)]
    if not found:
        return
    ensure(destination)
    recording = Recording(destination)
    for directory in found:
        bodies = Store(directory)
        for fetched in read(directory):
            recording.copy(fetched, bodies.body(fetched.digest) if fetched.digest else None)
    if any(map(incomplete, found)):
        recording.give_up()
    recording.close()
