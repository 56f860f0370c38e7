"""The proxy process: `python -m baker.proxy.server DIRECTORY` serves on a free port of 127.0.0.1 until its stdin ends.

It writes JSON lines to stdout for its parent: first the port and the certificate, then one line per request, and warnings. When
the parent dies, stdin ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from baker.proxy.certificate_authority import Authority
from baker.proxy.handler import Cache, Served
from baker.proxy.recording import Recording, Replay
from baker.proxy.store import Store
from baker.proxy.tunnels import ConnectionRouter, Tunnels
from baker.proxy.upstream import MAX_LINE_BYTES, Guard, Upstream

BACKLOG = 128
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
SHUTDOWN_SECONDS = 0.1  # that requests in progress get when the build ends


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="baker.proxy.server")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--allow", action="append", default=[], metavar="ADDRESS", help="connect to this address of the host")
    parser.add_argument("--offline", action="store_true", help="serve stored responses only")
    parser.add_argument("--record", type=Path, metavar="DIRECTORY", help="record every response there")
    parser.add_argument("--replay", type=Path, metavar="DIRECTORY", help="answer from the recording there only")
    parser.add_argument("--intercept", action="store_true", help="handle HTTPS too, with the certificate of an own authority")
    options = parser.parse_args(argv)
    try:
        asyncio.run(_serve(options))
    except BrokenPipeError:
        os._exit(1)  # the parent is dead; a normal exit would fail to flush stdout
    return 0


async def _serve(options: argparse.Namespace) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await loop.connect_read_pipe(lambda: _EndOfStream(stop), sys.stdin)
    store = Store(options.directory)
    async with Upstream(Guard(options.allow)) as upstream, AsyncExitStack() as servers:
        offline, authority = options.offline or bool(options.replay), Authority() if options.intercept else None
        recording = Recording(options.record) if options.record else None
        replay = Replay(options.replay) if options.replay else None
        cache = Cache(store, upstream, served=_served, warn=_warn, offline=offline, recording=recording, replay=replay)
        inner = _InnerServers(cache, servers)
        tunnels = Tunnels(upstream, served=_served, offline=offline, authority=authority, web=inner.connection)
        handlers = _web_server(cache.answer)
        listening = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        server = await loop.create_server(lambda: ConnectionRouter(handlers, tunnels), sock=listening)
        _send(port=listening.getsockname()[1], ca=authority.pem if authority else "")
        await asyncio.to_thread(store.clean_tmp)
        await stop.wait()
        server.close()
        await tunnels.close()
        await handlers.shutdown(SHUTDOWN_SECONDS)


def _web_server(answer: Handler) -> web.Server:
    return web.Server(answer, access_log=None, auto_decompress=False, max_line_size=MAX_LINE_BYTES, max_field_size=MAX_LINE_BYTES)


class _InnerServers:
    """Web servers for intercepted tunnels, one for each origin (scheme, host and port) that clients connect to."""

    def __init__(self, cache: Cache, stack: AsyncExitStack) -> None:
        self._cache, self._stack = cache, stack
        self._servers: dict[str, web.Server] = {}

    def connection(self, base: str) -> asyncio.Protocol:
        if base not in self._servers:
            server = self._servers[base] = _web_server(partial(self._cache.answer, base=base))
            self._stack.push_async_callback(server.shutdown, SHUTDOWN_SECONDS)
        return self._servers[base]()


class _EndOfStream(asyncio.Protocol):
    """Sets an event when a stream ends."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    def connection_lost(self, error: Exception | None) -> None:
        self._event.set()


def _served(served: Served) -> None:
    _send(**asdict(served))


def _warn(text: str) -> None:
    _send(warning=text)


def _send(**line: Any) -> None:
    """Send a message to the parent."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
