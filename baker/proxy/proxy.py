"""The pull-through cache for what guests fetch over HTTP during a build: a proxy that runs in a process of its own.

QEMU's user networking maps 10.0.2.2 in a guest to the host's loopback, so a guest reaches the proxy at 10.0.2.2 on `Proxy.port`, and
everything else that listens on the host's loopback as well. The proxy nevertheless refuses to connect to loopback, link-local and
metadata addresses, because guests on other networks may use it. Requests to 10.0.2.2 itself must not go through the proxy
(`no_proxy=10.0.2.2`), because the host has no such address.

Encrypted traffic goes through tunnels and is not stored, unless guests trust an authority that exists as long as the proxy.
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
TAIL_LINES = 20  # of the process's stderr that messages show
TRUST_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # the environment's certificates that OpenSSL trusts


@dataclass(frozen=True)
class Statistics:
    """Counts of requests by outcome, and of bytes of bodies by source."""

    requests: int = 0
    hits: int = 0  # answered from the cache without asking the server
    revalidated: int = 0  # answered from the cache after the server confirmed it
    misses: int = 0  # fetched from the server
    passed: int = 0  # not handled by the cache: tunnels, requests with credentials, other methods
    failed: int = 0
    bytes_from_cache: int = 0
    bytes_fetched: int = 0

    def __str__(self) -> str:
        cached, fetched = human(self.bytes_from_cache), human(self.bytes_fetched)
        parts = [f"{self.hits + self.revalidated} from the cache ({cached})", f"{self.misses + self.passed} fetched ({fetched})"]
        return f"{self.requests} requests: " + ", ".join(parts + [f"{self.failed} failed"] * bool(self.failed))

    def including(self, served: dict[str, Any]) -> Statistics:
        """The counts with one more request; `served` is the proxy's message about it."""
        name = {"hit": "hits", "revalidated": "revalidated", "miss": "misses", "passed": "passed"}.get(served["how"], "failed")
        return replace(
            self,
            requests=self.requests + 1,
            bytes_from_cache=self.bytes_from_cache + served["from_cache"],
            bytes_fetched=self.bytes_fetched + served["fetched"],
            **{name: getattr(self, name) + 1},
        )


class Proxy:
    """A proxy process that is starting or running. Its `statistics` can be read at any time, also after it has ended."""

    def __init__(self, child: Popen[bytes], report: Reporter) -> None:
        self.statistics = Statistics()
        self._child = child
        self._report = report
        self._port: Future[int] = Future()
        self._authority = ""
        self._ending = False
        self._stderr_tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._threads = [threading.Thread(target=read, daemon=True) for read in (self._read_messages, self._read_stderr)]
        for thread in self._threads:
            thread.start()

    @property
    def port(self) -> int:
        """The port on 127.0.0.1. Waits until the proxy has started; HostError when it does not."""
        try:
            return self._port.result(START_SECONDS)
        except TimeoutError:
            message = f"timed out after {START_SECONDS:g} s waiting for the HTTP cache to start"
            raise HostError(message, hint="try again when this host is less busy", code="proxy.start-timeout") from None

    @property
    def authority(self) -> str:
        """The certificate in PEM that guests must trust, if the proxy intercepts HTTPS; otherwise ""."""
        return self._authority if self.port else ""

    def close(self) -> None:
        """Ask the process to end, and read its messages until then."""
        self._ending = True
        assert self._child.stdin is not None
        with suppress(OSError):
            self._child.stdin.close()
        with suppress(TimeoutExpired):
            self._child.wait(END_SECONDS)
        process.end(self._child)
        for thread in self._threads:
            thread.join(END_SECONDS)

    def _read_messages(self) -> None:
        for line in _lines(self._child.stdout):
            message = json.loads(line)
            if "port" in message:
                self._authority = message["ca"]
                self._port.set_result(message["port"])
            elif "warning" in message:
                self._report.warn(message["warning"], hint="the build continues, but its downloads are not stored")
            else:
                self.statistics = self.statistics.including(message)
                self._report.debug(f"{message['method']} {message['url']}: {message['status']}, {message['how']}")
        if not self._port.done():
            self._threads[1].join(END_SECONDS)
            text = "\n".join(["the HTTP cache did not start", *self._stderr_tail])
            self._port.set_exception(HostError(text, code="proxy.start-failed"))
        elif not self._ending:
            self._threads[1].join(END_SECONDS)
            text = "\n".join(["the HTTP cache ended unexpectedly", *self._stderr_tail])
            self._report.warn(text, hint="further downloads of the guest through it will fail")

    def _read_stderr(self) -> None:
        self._stderr_tail.extend(line.rstrip() for line in _lines(self._child.stderr))


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
    """Run a caching proxy on 127.0.0.1, which stores responses in `directory`, until the end of the block.

    The proxy starts in the background; only access to its port waits for it. `offline`: serve stored responses however old they are,
    and answer 504 to all other requests. `record`: a directory in which every response is recorded (recording.py). `replay`: a directory
    with a recording that answers all requests. `intercept`: handle HTTPS too, with the proxy's authority. `allow`: addresses of the
    host (such as 127.0.0.1) that the proxy may connect to, for tests.
    """
    argv: list[str | Path] = [sys.executable, "-P", "-m", "baker.proxy.server", directory.absolute()]
    argv += [f"--allow={address}" for address in allow]
    argv += ["--offline"] if offline else []
    argv += [f"--{name}={path.absolute()}" for name, path in (("record", record), ("replay", replay)) if path]
    argv += ["--intercept"] if intercept else []
    trust = {name: os.environ[name] for name in TRUST_VARIABLES if name in os.environ}
    env = {"PYTHONPATH": str(PACKAGE.parent), **trust}
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
    with suppress(ValueError):  # the stream was closed while a thread reads it
        for line in stream:
            yield line.decode("utf-8", "replace")
