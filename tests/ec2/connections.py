"""Connections that stay open for blocks, as those of EBS do: werkzeug's development server closes every one after an answer, so that an
upload of a thousand blocks would measure a thousand connections."""

from __future__ import annotations

import io
import re

from moto.moto_server.werkzeug_app import MotoRequestHandler

BLOCK_PATH = re.compile(r"/snapshots/[^/]+/blocks/\d+$")


class Handler(MotoRequestHandler):
    """PutSnapshotBlock keeps its connection; everything else is werkzeug's."""

    def run_wsgi(self) -> None:
        if self.command != "PUT" or not BLOCK_PATH.match(self.path):
            super().run_wsgi()
            return
        environ = self.make_environ()
        environ["wsgi.input"] = io.BytesIO(self.rfile.read(int(self.headers["Content-Length"])))
        began: list[tuple[str, list[tuple[str, str]]]] = []
        body = b"".join(self.server.app(environ, lambda status, headers, *_: began.append((status, headers))))
        status, headers = began[-1]
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers), "", ""]
        self.wfile.write("\r\n".join(lines).encode("latin-1") + body)
