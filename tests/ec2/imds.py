"""The instance metadata service of one machine: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html.

QEMU hands each connection of the guest to 169.254.169.254:80 to `relay.py`, which joins it to the port of the machine's own server here.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Tree = dict[str, Any]
TOKEN, TTL = "X-aws-ec2-metadata-token", "X-aws-ec2-metadata-token-ttl-seconds"


class Metadata:
    """Answers for one machine. `tree` gives {"meta-data": {...}, "user-data": bytes, "dynamic": {...}}, asked anew each time;
    `tokens` is MetadataOptions.HttpTokens."""

    def __init__(self, tree: Callable[[], Tree], tokens: str) -> None:
        self.tree, self.required, self.tokens = tree, tokens == "required", set[str]()
        self.seen: list[str] = []  # "GET /latest/user-data 200"
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, headers: Any) -> tuple[int, bytes]:
        parts = [part for part in path.split("?", maxsplit=1)[0].split("/") if part]
        if method == "PUT":
            return self._token(parts, headers)
        if self.required and headers.get(TOKEN) not in self.tokens:
            return 401, b"Unauthorized"
        if not parts:
            return 200, b"latest\n2021-03-23"
        return find(self.tree(), parts[1:])

    def _token(self, parts: list[str], headers: Any) -> tuple[int, bytes]:
        if parts != ["latest", "api", "token"] or not str(headers.get(TTL, "")).isdigit() or headers.get("X-Forwarded-For"):
            return 400, b"Bad Request"
        made = secrets.token_urlsafe(40)
        self.tokens.add(made)
        return 200, made.encode()


def find(tree: Tree, parts: list[str]) -> tuple[int, bytes]:
    """(status, body) for a path: a leaf's text, or the names below it, as the service lists them."""
    node: Any = tree
    for part in parts:
        part = part.split("=")[0]
        if not isinstance(node, dict) or part not in node:
            return 404, b"Not Found"
        node = node[part]
    if node is None:
        return 404, b"Not Found"
    if isinstance(node, dict):
        listed = node.get("") or [f"{name}/" if isinstance(value, dict) else name for name, value in node.items()]
        return 200, "\n".join(listed).encode()
    return 200, node if isinstance(node, bytes) else str(node).encode()


def _handler(metadata: Metadata) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(*metadata.answer("GET", self.path, self.headers))

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._say(*metadata.answer("PUT", self.path, self.headers))

        def _say(self, status: int, body: bytes) -> None:
            metadata.seen.append(f"{self.command} {self.path} {status}")
            self.send_response(status)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
