"""The pull-through cache for what guests fetch over HTTP during a build: a proxy in a process of its own beside it.

QEMU's user networking shows a guest the host's loopback at 10.0.2.2, so that a guest reaches the proxy at 10.0.2.2 on `Proxy.port`;
it reaches everything else that listens on the host's loopback there as well. The proxy all the same refuses to connect to loopback,
link-local and metadata addresses: other networks than QEMU's may lead to it. What a guest fetches from 10.0.2.2 itself must
not go through the proxy (`no_proxy=10.0.2.2`): the host knows no such address.

Encrypted traffic goes through tunnels and is not kept, unless guests are told of an authority that lives as long as the proxy.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired
from typing import IO, Any

from baker.core import process
from baker.core.disk_space import human
from baker.core.errors import HostError
from baker.core.events import Reporter
from baker.core.home import PACKAGE

START_SECONDS = 60.0
END_SECONDS = 3.0
TAIL_LINES = 20
TRUSTED = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # whom OpenSSL trusts on a host that says so itself


@dataclass(frozen=True)
class Statistics:
    """What became of the requests so far."""

    requests: int = 0
    hits: int = 0  # answered from the cache, and nobody was asked
    revalidated: int = 0  # answered from the cache: the server said that it is current
    misses: int = 0  # fetched
    passed: int = 0  # not for the cache: tunnels, requests with credentials, other methods
    failed: int = 0
    bytes_from_cache: int = 0
    bytes_fetched: int = 0

    def __str__(self) -> str:
        kept, fetched = human(self.bytes_from_cache), human(self.bytes_fetched)
        parts = [f"{self.hits + self.revalidated} from the cache ({kept})", f"{self.misses + self.passed} fetched ({fetched})"]
        return f"{self.requests} requests: " + ", ".join(parts + [f"{self.failed} failed"] * bool(self.failed))

    def plus(self, served: dict[str, Any]) -> Statistics:
        """With one more request, as the proxy told of it."""
        name = {"hit": "hits", "revalidated": "revalidated", "miss": "misses", "passed": "passed"}.get(served["how"], "failed")
        return replace(
            self,
            requests=self.requests + 1,
            bytes_from_cache=self.bytes_from_cache + served["from_cache"],
            bytes_fetched=self.bytes_fetched + served["fetched"],
            **{name: getattr(self, name) + 1},
        )


class Proxy:
    """A proxy that is starting or running. Its `statistics` can be read at any time, also after its end."""

    def __init__(self, child: Popen[bytes], report: Reporter) -> None:
        self.statistics = Statistics()
        self._child = child
        self._report = report
        self._port: Future[int] = Future()
        self._authority = ""
        self._ending = False
        self._said: deque[str] = deque(maxlen=TAIL_LINES)
        self._threads = [threading.Thread(target=read, daemon=True) for read in (self._listen, self._hear_errors)]
        for thread in self._threads:
            thread.start()

    @property
    def port(self) -> int:
        """The port on 127.0.0.1. Waits for the proxy to have started; HostError when it cannot."""
        try:
            return self._port.result(START_SECONDS)
        except TimeoutError:
            raise HostError(f"the HTTP cache has not started within {START_SECONDS:g} s") from None

    @property
    def authority(self) -> str:
        """The certificate, PEM, that guests must trust for their encrypted requests to be answered; "" where these go through tunnels."""
        return self._authority if self.port else ""

    def close(self) -> None:
        """Ask the process to end, and hear what it has to say until then."""
        self._ending = True
        assert self._child.stdin is not None
        with suppress(OSError):
            self._child.stdin.close()
        with suppress(TimeoutExpired):
            self._child.wait(END_SECONDS)
        process.end(self._child)
        for thread in self._threads:
            thread.join(END_SECONDS)

    def _listen(self) -> None:
        for line in _lines(self._child.stdout):
            told = json.loads(line)
            if "port" in told:
                self._authority = told["ca"]
                self._port.set_result(told["port"])
            elif "warning" in told:
                self._report.warn(told["warning"], hint="the build goes on; what it fetches is not kept")
            else:
                self.statistics = self.statistics.plus(told)
                self._report.debug(f"{told['method']} {told['url']}: {told['status']}, {told['how']}")
        if not self._port.done():
            self._threads[1].join(END_SECONDS)
            self._port.set_exception(HostError("\n".join(["the HTTP cache did not start", *self._said])))
        elif not self._ending:
            self._threads[1].join(END_SECONDS)
            said = "\n".join(["the HTTP cache has ended by itself", *self._said])
            self._report.warn(said, hint="what the guest fetches through it fails from now on")

    def _hear_errors(self) -> None:
        self._said.extend(line.rstrip() for line in _lines(self._child.stderr))


@contextmanager
def http_cache(
    directory: Path,
    *,
    report: Reporter,
    allow: Collection[str] = (),
    offline: bool = False,
    record: Path | None = None,
    replay: Path | None = None,
    intercept: bool = False,
) -> Iterator[Proxy]:
    """A caching proxy on 127.0.0.1 that keeps what passes in `directory`, until the end of the block.

    It starts beside the caller: only who asks for its port waits for it. `offline` serves what is kept however old it is, and
    answers 504 for all else. `record`: a directory in which every response is noted (record.py); `replay`: one out of which, and nothing
    else, every request is answered. `intercept`: HTTPS too. `allow` names addresses of the host (like 127.0.0.1) that it connects
    to all the same, for tests.
    """
    argv: list[str | Path] = [sys.executable, "-P", "-m", "baker.proxy.server", directory.absolute()]
    argv += [f"--allow={address}" for address in allow]
    argv += ["--offline"] if offline else []
    argv += [f"--{name}={path.absolute()}" for name, path in (("record", record), ("replay", replay)) if path]
    argv += ["--intercept"] if intercept else []
    trusted = {name: os.environ[name] for name in TRUSTED if name in os.environ}
    env = {"PYTHONPATH": str(PACKAGE.parent), **trusted}
    with process.spawn(argv, env=env, stdin=PIPE) as child:
        proxy = Proxy(child, report)
        try:
            yield proxy
        finally:
            proxy.close()
            if proxy.statistics.requests:
                report.info(f"HTTP cache: {proxy.statistics}")


def _lines(stream: IO[bytes] | None) -> Iterator[str]:
    assert stream is not None
    with suppress(ValueError):  # closed while a thread reads
        for line in stream:
            yield line.decode("utf-8", "replace")
