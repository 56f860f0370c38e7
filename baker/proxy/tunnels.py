"""The door of the proxy: a connection that begins with CONNECT becomes a tunnel, any other one is the web server's.

What goes through a tunnel is between the guest and the server: it is neither seen nor kept. Unless the guest was told of an authority
(authority.py): then the tunnel ends here, and what is asked for in it is answered like any other request.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from baker.proxy import policy
from baker.proxy.certificate_authority import Authority
from baker.proxy.handler import Served
from baker.proxy.upstream import CHUNK, LONGEST_HEAD, Upstream, UpstreamError

CONNECT = b"CONNECT "
END = b"\r\n\r\n"
HANDSHAKE_SECONDS = 60.0  # an emulated guest takes its time


class Tunnels:
    """The tunnels that are open. `offline` allows none."""

    def __init__(
        self,
        upstream: Upstream,
        *,
        served: Callable[[Served], None],
        offline: bool = False,
        authority: Authority | None = None,
        web: Callable[[str], asyncio.Protocol] | None = None,
    ) -> None:
        self.upstream = upstream
        self._authority = authority
        self._web = web  # a web server for a tunnel that ends here, given scheme and authority
        self.served = served
        self.offline = offline
        self._open: set[asyncio.Task[None]] = set()

    def start(self, transport: asyncio.Transport, head: bytes, rest: bytes) -> None:
        """Serve the client at `transport`, which has sent `head` and after it `rest`, from now on."""
        if self._authority is not None:
            task = asyncio.get_running_loop().create_task(self._stand_in(transport, head))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            return
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

    async def _stand_in(self, transport: asyncio.Transport, head: bytes) -> None:
        """Be the server that the client wants to speak to."""
        assert self._authority is not None and self._web is not None
        served = Served("CONNECT", head.split(b" ")[1].decode("ascii", "replace").rpartition("@")[2])
        transport.pause_reading()
        try:
            host, port = _authority(head.split(b" ")[1].decode("ascii", "replace"))
            context = await asyncio.to_thread(self._authority.context, host)
            transport.write(b"HTTP/1.1 200 Connection established" + END)
            early, loop = _Early(), asyncio.get_running_loop()
            inner = await loop.start_tls(transport, early, context, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS)
        except UpstreamError as error:
            served.status = error.status
            transport.write(f"HTTP/1.1 {error.status} No tunnel\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            transport.close()
            self.served(served)
            return
        except (OSError, ssl.SSLError):  # the client does not trust the authority, or has gone
            transport.abort()
            served.status = 502
            self.served(served)
            return
        if inner is not None:
            place = f"[{host}]" if ":" in host else host
            early.hand_over(inner, self._web(f"https://{place}" if port == 443 else f"https://{place}:{port}"))

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


class _Early(asyncio.Protocol):
    """Holds what a client sends behind its handshake until somebody is there to read it."""

    def __init__(self) -> None:
        self._read = b""
        self._ended = False

    def data_received(self, data: bytes) -> None:
        self._read += data

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = True

    def hand_over(self, transport: asyncio.Transport, protocol: asyncio.Protocol) -> None:
        if self._ended:
            return
        protocol.connection_made(transport)
        transport.set_protocol(protocol)
        if self._read:
            protocol.data_received(self._read)


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
