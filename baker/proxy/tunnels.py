"""Tunnels through the proxy: a connection that begins with CONNECT becomes a tunnel, any other one goes to the web server.

The proxy copies the bytes of a tunnel without reading or storing them. With an authority that the guest trusts
(certificate_authority.py), the proxy intercepts the tunnel instead and answers the requests in it like any other request.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from baker.proxy import policy
from baker.proxy.certificate_authority import Authority
from baker.proxy.handler import Served
from baker.proxy.upstream import CHUNK, MAX_HEAD_BYTES, Upstream, UpstreamError

CONNECT = b"CONNECT "
END_OF_HEAD = b"\r\n\r\n"
HANDSHAKE_SECONDS = 60.0  # an emulated guest is slow


class Tunnels:
    """Opens tunnels and keeps track of them. `offline` allows only intercepted ones.

    `web` returns a web server for an intercepted tunnel, given its origin ("https://host:port").
    """

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
        self._web = web
        self.served = served
        self.offline = offline
        self._open: set[asyncio.Task[None]] = set()

    def start(self, transport: asyncio.Transport, head: bytes, rest: bytes) -> None:
        """Take over the connection `transport`, whose client has sent the request `head` and after it `rest`."""
        if self._authority is not None:
            task = asyncio.get_running_loop().create_task(self._intercept(transport, head))
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

    async def _intercept(self, transport: asyncio.Transport, head: bytes) -> None:
        """Act as the TLS server that the client wants to reach."""
        assert self._authority is not None and self._web is not None
        served = Served("CONNECT", head.split(b" ")[1].decode("ascii", "replace").rpartition("@")[2])
        transport.pause_reading()
        try:
            host, port = _parse_authority(head.split(b" ")[1].decode("ascii", "replace"))
            context = await asyncio.to_thread(self._authority.context, host)
            transport.write(b"HTTP/1.1 200 Connection established" + END_OF_HEAD)
            buffer, loop = _ReadBuffer(), asyncio.get_running_loop()
            inner = await loop.start_tls(transport, buffer, context, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS)
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
            name = f"[{host}]" if ":" in host else host
            buffer.hand_over(inner, self._web(f"https://{name}" if port == 443 else f"https://{name}:{port}"))

    async def _serve(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served = Served("CONNECT", head.split(b" ")[1].decode("ascii", "replace").rpartition("@")[2])
        try:
            await self._run(served, head, reader, writer)
        except UpstreamError as error:
            served.status = error.status
            text = f"bake: {error}\n"
            writer.write(f"HTTP/1.1 {error.status} No tunnel\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode())
        except OSError:
            pass  # one side has closed its connection
        finally:
            writer.close()
            self.served(served)

    async def _run(self, served: Served, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = _parse_authority(head.split(b" ")[1].decode("ascii", "replace"))
        if self.offline:
            raise UpstreamError(504, f"{served.url} is not in the cache: encrypted traffic is not stored")
        server_reader, server_writer = await self.upstream.tunnel(host, port)
        try:
            served.how, served.status = "passed", 200
            writer.write(b"HTTP/1.1 200 Connection established" + END_OF_HEAD)
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy_stream(reader, server_writer))
                group.create_task(_copy_stream(server_reader, writer, served))
        except* OSError:
            pass
        finally:
            server_writer.close()


class _ReadBuffer(asyncio.Protocol):
    """Buffers what a client sends after its handshake until the web server takes over."""

    def __init__(self) -> None:
        self._data = b""
        self._ended = False

    def data_received(self, data: bytes) -> None:
        self._data += data

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = True

    def hand_over(self, transport: asyncio.Transport, protocol: asyncio.Protocol) -> None:
        if self._ended:
            return
        protocol.connection_made(transport)
        transport.set_protocol(protocol)
        if self._data:
            protocol.data_received(self._data)


class ConnectionRouter(asyncio.Protocol):
    """Reads the beginning of a connection and passes the connection to the tunnels or to the web server."""

    def __init__(self, web: Callable[[], asyncio.Protocol], tunnels: Tunnels) -> None:
        self._web = web
        self._tunnels = tunnels
        self._data = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._data += data
        if not self._data.startswith(CONNECT[: len(self._data)]):
            protocol = self._web()
            protocol.connection_made(self._transport)
            self._transport.set_protocol(protocol)
            protocol.data_received(self._data)
        elif END_OF_HEAD in self._data:
            head, _, rest = self._data.partition(END_OF_HEAD)
            self._tunnels.start(self._transport, head, rest)
        elif len(self._data) > MAX_HEAD_BYTES:
            self._transport.abort()


def _parse_authority(text: str) -> tuple[str, int]:
    """The host and port in the target of a CONNECT request. UpstreamError when it is invalid."""
    try:
        target = policy.target(f"https://{text}")
    except ValueError:
        target = None
    if target is None or set(text) & set("/?#@"):
        raise UpstreamError(400, "the target of CONNECT must be a host and a port")
    return policy.host_and_port(target.url)


async def _copy_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, served: Served | None = None) -> None:
    """Copy a stream and its end; `served` counts the bytes."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
        if served is not None:
            served.fetched += len(data)
    if writer.can_write_eof():
        writer.write_eof()
