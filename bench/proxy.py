"""A small caching HTTP proxy on loopback, through which all guests of the benchmark download packages.

So neither the archive's mood nor who came first makes a difference, and both tools download from the same place at the same speed.
It answers GET only, and keeps whole answers by URL for as long as the benchmark runs.
"""

from __future__ import annotations

import hashlib
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

SECONDS = 120
KEPT_HEADERS = ("Content-Type", "Last-Modified", "ETag")
HOST_IN_GUEST = "10.0.2.2"  # address of the host in QEMU's user network


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    data: bytes


@contextmanager
def package_cache(directory: Path) -> Iterator[str]:
    """Run the proxy; yields its address as guests see it."""
    directory.mkdir(parents=True, exist_ok=True)
    handler = type("Handler", (_Handler,), {"directory": directory})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{HOST_IN_GUEST}:{server.server_port}"
        finally:
            server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # apt asks for many files over one connection
    directory: ClassVar[Path]
    locks: ClassVar[dict[str, threading.Lock]] = {}

    def do_GET(self) -> None:  # noqa: N802 - BaseHTTPRequestHandler's name
        if not self.path.startswith("http://"):
            self.send_error(400, "this is a proxy")
            return
        answer = self._answer()
        self.send_response(answer.status)
        for header, value in answer.headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(answer.data)))
        self.end_headers()
        self.wfile.write(answer.data)

    def _answer(self) -> Answer:
        """Return the cached response; the first time, fetch and cache it. Temporary failures (5xx) are not cached."""
        name = hashlib.sha256(self.path.encode()).hexdigest()
        body, about = self.directory / name, self.directory / f"{name}.json"
        with self.locks.setdefault(name, threading.Lock()):
            if about.exists():
                kept = json.loads(about.read_text())
                return Answer(kept["status"], kept["headers"], body.read_bytes())
            answer = _fetch(self.path)
            if answer.status < 500:
                body.write_bytes(answer.data)
                about.write_text(json.dumps({"url": self.path, "status": answer.status, "headers": answer.headers}))
            return answer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - BaseHTTPRequestHandler's name
        pass


def _fetch(url: str) -> Answer:
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as reply:
            return Answer(reply.status, _kept(reply.headers), reply.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, _kept(error.headers), error.read())
    except OSError as error:
        return Answer(502, {}, str(error).encode())


def _kept(headers: Message) -> dict[str, str]:
    return {name: headers[name] for name in KEPT_HEADERS if headers.get(name)}
