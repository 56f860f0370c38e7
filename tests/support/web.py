"""A file server on loopback that misbehaves as told: real sockets, real HTTP."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What the server shows. `drop_after`: for each request in turn, how many bytes of the body it sends before it hangs up (None: all);
    `statuses`: for each request in turn, an answer instead of the file."""

    files: dict[str, bytes]
    etag: str | None = '"one"'
    ranges: bool = True
    drop_after: list[int | None] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve `site` on a free port of 127.0.0.1; `site.url` is its address, without a slash at the end."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            site.requests.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
            if site.statuses:
                self._refuse(site.statuses.pop(0))
            elif self.path not in site.files:
                self._refuse(404)
            else:
                self._send(site.files[self.path])

        def _refuse(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, data: bytes) -> None:
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
            if site.etag:
                self.send_header("ETag", site.etag)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            most = site.drop_after.pop(0) if site.drop_after else None
            self.wfile.write(body[:most])
            if most is not None:
                self.close_connection = True

        def _first(self, data: bytes) -> int | None:
            found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if not found or not site.ranges:
                return None
            condition = self.headers.get("If-Range")
            return None if condition and condition != site.etag else int(found[1])

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
