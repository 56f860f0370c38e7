"""A file server on loopback with configurable faults: real sockets, real HTTP."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """The files and the behaviour of the server. `drop_after`: for each request in turn, the number of body bytes that it sends before it
    closes the connection (None: all); `statuses`: for each request in turn, a status to send instead of the file; `headers`: sent with
    every file. With `chunked` the length is not sent; with `pause_after` the rest of a body waits for `go_on`. A POST returns its body."""

    files: dict[str, bytes]
    etag: str | None = '"one"'
    ranges: bool = True
    drop_after: list[int | None] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    chunked: bool = False
    pause_after: int | None = None
    go_on: threading.Event = field(default_factory=threading.Event)
    requests: list[dict[str, str]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(site: Site, tls: ssl.SSLContext | None = None, *, address: str = "127.0.0.1") -> Iterator[Site]:
    """Serve `site` on a free port of `address`, over TLS where that is given; `site.url` is its address, without a slash at the end."""

    connections: list[socket.socket] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            connections.append(self.connection)

        def do_GET(self) -> None:
            site.requests.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
            if site.statuses:
                self._refuse(site.statuses.pop(0))
            elif self.path not in site.files:
                self._refuse(404)
            else:
                self._send(site.files[self.path])

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            site.requests.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
            self._send(body)

        def _refuse(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, data: bytes) -> None:
            if site.etag and self.headers.get("If-None-Match") == site.etag:
                self.send_response(304)
                self._describe()
                self.end_headers()
                return
            first = self._first(data)
            if first is not None and first >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = data[first or 0 :]
            self.send_response(200 if first is None else 206)
            if first is not None:
                self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
            self._describe()
            self.send_header(*(("Transfer-Encoding", "chunked") if site.chunked else ("Content-Length", str(len(body)))))
            self.end_headers()
            if self.command == "HEAD":
                return
            most = site.drop_after.pop(0) if site.drop_after else None
            if site.pause_after is not None:
                self._write(body[: site.pause_after])
                site.go_on.wait(30)
                body = body[site.pause_after :]
            self._write(body[:most])
            if site.chunked and most is None:
                self.wfile.write(b"0\r\n\r\n")
            if most is not None:
                self.close_connection = True

        def _write(self, data: bytes) -> None:
            try:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data) if site.chunked else data)
            except ConnectionError:
                self.close_connection = True  # the client is gone

        def _describe(self) -> None:
            for name, value in {**site.headers, **({"ETag": site.etag} if site.etag else {})}.items():
                self.send_header(name, value)

        def _first(self, data: bytes) -> int | None:
            found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if not found or not site.ranges:
                return None
            condition = self.headers.get("If-Range")
            return None if condition and condition != site.etag else int(found[1])

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer((address, 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    site.url = f"{'https' if tls else 'http'}://{address}:{server.server_address[1]}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        for connection in connections:  # a client may keep it open
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        thread.join(5)
