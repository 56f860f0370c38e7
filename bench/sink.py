"""A minimal receiver of EBS blocks: reads a request, verifies its checksum, answers. A separate process with a thread per connection.

    python -m bench.sink    prints its port, ends with its stdin

What an upload does against it is the client's own speed, not that of an emulator.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import sys
import threading

BLOCK = 512 << 10
ANSWER = (
    b"HTTP/1.1 %s\r\nx-amz-Checksum: %s\r\nx-amz-Checksum-Algorithm: SHA256\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n"
)


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        sys.stdin.read()
        os._exit(0)


def accept(server: socket.socket) -> None:
    while True:
        connection, _ = server.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def serve(connection: socket.socket) -> None:
    buffer = memoryview(bytearray(BLOCK))
    with connection, connection.makefile("rb", buffering=1 << 16) as stream:
        while stream.readline():
            headers = {}
            while line := stream.readline().strip():
                name, _, value = line.partition(b":")
                headers[name.lower()] = value.strip()
            body = buffer[: int(headers.get(b"content-length", 0))]
            got = 0
            while got < len(body):
                got += stream.readinto(body[got:])  # type: ignore[attr-defined]
            digest = base64.b64encode(hashlib.sha256(body).digest())
            connection.sendall(ANSWER % (b"201 Created" if digest == headers.get(b"x-amz-checksum") else b"400 Bad Request", digest))


if __name__ == "__main__":
    main()
