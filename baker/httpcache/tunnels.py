"""The door of the proxy: a connection that begins with CONNECT becomes a tunnel, any other one is the web server's.

What goes through a tunnel is between the guest and the server: it is neither seen nor kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from baker.httpcache import policy
from baker.httpcache.exchange import Served
from baker.httpcache.upstream import CHUNK, LONGEST_HEAD, Upstream, UpstreamError

CONNECT = b"CONNECT "
END = b"\r\n\r\n"


class Tunnels:
    """The tunnels that are open. `offline` allows none."""

    def __init__(self, upstream: Upstream, *, served: Callable[[Served], None], offline: bool = False) -> None:
        self.upstream = upstream
        self.served = served
        self.offline = offline
        self._open: set[asyncio.Task[None]] = set()

    def start(self, transport: asyncio.Transport, head: bytes, rest: bytes) -> None:
        """Serve the client at `transport`, which has sent `head` and after it `rest`, from now on."""
        reader = asyncio.StreamReader(limit=CHUNK)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        reader.feed_data(rest)
        writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
        task = asyncio.get_running_loop().create_task(self._serve(head, reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def close(self) -> None:
        for task in tuple(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served = Served("CONNECT", head.split(b" ")[1].decode("ascii", "replace").rpartition("@")[2])
        try:
            await self._run(served, head, reader, writer)
        except UpstreamError as error:
            served.status = error.status
            text = f"bake: {error}\n"
            writer.write(f"HTTP/1.1 {error.status} No tunnel\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode())
        except OSError:
            pass  # one of the two is gone
        finally:
            writer.close()
            self.served(served)

    async def _run(self, served: Served, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = _authority(head.split(b" ")[1].decode("ascii", "replace"))
        if self.offline:
            raise UpstreamError(504, f"{served.url} is not in the cache: what is encrypted is not kept")
        far_reader, far_writer = await self.upstream.tunnel(host, port)
        try:
            served.how, served.status = "passed", 200
            writer.write(b"HTTP/1.1 200 Connection established" + END)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, far_writer))
                group.create_task(_pump(far_reader, writer, served))
        except* OSError:
            pass
        finally:
            far_writer.close()


class Door(asyncio.Protocol):
    """Reads the beginning of a connection and hands it to whom it is for."""

    def __init__(self, web: Callable[[], asyncio.Protocol], tunnels: Tunnels) -> None:
        self._web = web
        self._tunnels = tunnels
        self._read = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._read += data
        if not self._read.startswith(CONNECT[: len(self._read)]):
            protocol = self._web()
            protocol.connection_made(self._transport)
            self._transport.set_protocol(protocol)
            protocol.data_received(self._read)
        elif END in self._read:
            head, _, rest = self._read.partition(END)
            self._tunnels.start(self._transport, head, rest)
        elif len(self._read) > LONGEST_HEAD:
            self._transport.abort()


def _authority(text: str) -> tuple[str, int]:
    """Host and port of a CONNECT request; UpstreamError when it names none."""
    try:
        found = policy.target(f"https://{text}")
    except ValueError:
        found = None
    if found is None or set(text) & set("/?#@"):
        raise UpstreamError(400, "a tunnel leads to a host and a port")
    return policy.place(found.url)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, served: Served | None = None) -> None:
    """Copy to the end, and pass that on as well; `served` counts the bytes."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
        if served is not None:
            served.fetched += len(data)
    if writer.can_write_eof():
        writer.write_eof()
