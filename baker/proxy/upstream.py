"""Requests and tunnels to the servers that guests ask for, directly or through the proxy in the host's environment.

Connections to the host's loopback, to link-local addresses and to the metadata services of clouds are refused, since services there
trust every client. The check applies to the addresses that connections are made to, so it does not matter what a name resolved to
before. With a proxy in the host's environment, that proxy resolves names; a name that resolves to a forbidden address on the host
is refused all the same.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import ipaddress
import os
import re
import socket
import ssl
import urllib.parse
from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self

import aiohttp
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from baker.core.http_env import proxy_for

CHUNK = 1 << 18
CONNECT_TIMEOUT, READ_TIMEOUT = 30.0, 120.0
MAX_LINE_BYTES = 1 << 15
MAX_HEAD_BYTES = 1 << 16
# metadata services outside of the link-local networks: Alibaba, Azure, AWS, Google
METADATA_NETWORKS = tuple(
    ipaddress.ip_network(text) for text in ("100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::/32", "fd20:ce::254/128")
)
FORBIDDEN_MESSAGE = "bake does not connect guests to the host's loopback, to link-local addresses, or to a cloud's metadata service"


class UpstreamError(Exception):
    """There is no answer from the server; `status` is the HTTP status that the proxy answers with."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ForbiddenAddress(OSError):
    """Guests must not reach this address through the host."""


class Guard:
    """Decides which addresses connections may go to: all except forbidden ones that are not in `allow`."""

    def __init__(self, allow: Collection[str] = ()) -> None:
        self._allowed = {ipaddress.ip_address(address) for address in allow}

    def check(self, address: str) -> None:
        """Raise ForbiddenAddress unless connections may go to the numeric `address`."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            raise ForbiddenAddress(errno.EACCES, FORBIDDEN_MESSAGE) from None  # another spelling, such as 127.1 or 2130706433
        parsed = _embedded_ipv4(parsed) or parsed
        special = parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified or parsed.is_multicast
        if parsed not in self._allowed and (special or any(parsed in network for network in METADATA_NETWORKS)):
            raise ForbiddenAddress(errno.EACCES, FORBIDDEN_MESSAGE)

    def socket(self, info: tuple[Any, ...]) -> socket.socket:
        """Create a socket for an address from getaddrinfo. All direct HTTP connections are made through this."""
        family, kind, protocol, _, address = info
        self.check(str(address[0]))
        return socket.socket(family, kind, protocol)

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses that `host` resolves to, at least one. ForbiddenAddress when one of them is forbidden."""
        resolved = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(info[4][0]) for info in resolved))
        for address in addresses:
            self.check(address)
        return addresses


def _embedded_ipv4(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that is embedded in an IPv6 address (mapped, 6to4 or NAT64); None without one."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    return address.ipv4_mapped or address.sixtofour or (ipaddress.IPv4Address(address.packed[12:]) if _is_nat64(address) else None)


def _is_nat64(address: ipaddress.IPv6Address) -> bool:
    return address in ipaddress.ip_network("64:ff9b::/96")


class Upstream:
    """Connections to servers, which stay open between requests. An asynchronous context manager."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._direct = await self._stack.enter_async_context(_session(self._guard.socket))
        self._through_proxy = await self._stack.enter_async_context(_session(None))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def request(
        self, method: str, url: str, lines: Iterable[tuple[str, str]], body: AsyncIterable[bytes] | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request to the server of `url`; the body of the response is to be read with `chunks`.

        UpstreamError when there is no answer.
        """
        parts = urllib.parse.urlsplit(url)
        session, proxy = self._direct, proxy_for(parts.scheme, parts.hostname or "")
        if proxy:
            session = self._through_proxy
            await self._check(parts.hostname or "", parts.port or 80)
        try:
            exact = URL(url, encoded=True)
            response = await session.request(method, exact, headers=list(lines), data=body, proxy=proxy, allow_redirects=False)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise _upstream_error(error, parts.hostname or "") from error
        async with response:
            yield response

    async def _check(self, host: str, port: int) -> None:
        """Raise UpstreamError for a forbidden host. A host that does not resolve here is left to the proxy."""
        try:
            await self._guard.addresses(host, port)
        except socket.gaierror:
            return
        except OSError as error:
            raise _upstream_error(error, host) from error

    async def tunnel(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection to `host` for a tunnel. UpstreamError when that fails."""
        proxy = proxy_for("https", host)
        if proxy:
            await self._check(host, port)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return await (_connect_through_proxy(proxy, host, port) if proxy else self._connect(host, port))
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise _upstream_error(error, host) from error

    async def _connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        addresses = await self._guard.addresses(host, port)
        for address in addresses[:-1]:
            try:
                return await asyncio.open_connection(address, port)
            except OSError:
                continue
        return await asyncio.open_connection(addresses[-1], port)


async def chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield the body of a response as it arrives, still encoded. UpstreamError when it ends early."""
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise UpstreamError(502, "the server closed the connection before the end of the response") from error


def authorization(login: str) -> tuple[str, str]:
    """The header line for the login ("user:password", percent-encoded) of a URL."""
    return "Authorization", "Basic " + base64.b64encode(urllib.parse.unquote(login).encode()).decode()


def _session(socket_factory: Any) -> aiohttp.ClientSession:
    """An HTTP client that sends only the given header lines and returns responses unchanged."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, resolver=ThreadedResolver(), socket_factory=socket_factory),
        timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT),
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        read_bufsize=CHUNK,
        max_line_size=MAX_LINE_BYTES,
        max_field_size=MAX_LINE_BYTES,
    )


async def _connect_through_proxy(proxy: str, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a tunnel through another proxy (RFC 9110, 9.3.6)."""
    parts = urllib.parse.urlsplit(proxy)
    reader, writer = await asyncio.open_connection(
        parts.hostname, parts.port or (443 if parts.scheme == "https" else 80), ssl=parts.scheme == "https" or None, limit=MAX_HEAD_BYTES
    )
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    login = parts.netloc.rpartition("@")[0]
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    lines += [f"Proxy-{name}: {value}" for name, value in ([authorization(login)] if login else [])]
    try:
        writer.write("\r\n".join((*lines, "", "")).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if not re.match(rb"HTTP/1\.\d 2\d\d", head):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the proxy of this host refuses the connection")
    except BaseException:
        writer.close()
        raise
    return reader, writer


def _upstream_error(error: BaseException, host: str) -> UpstreamError:
    """Convert `error` to the proxy's answer, which names the host but no other part of the URL."""
    inner: BaseException = getattr(error, "os_error", None) or error
    if isinstance(certificate := getattr(error, "certificate_error", inner), ssl.SSLCertVerificationError):
        return UpstreamError(502, f"the certificate of {host} is not valid: {certificate.verify_message}")
    if isinstance(inner, ForbiddenAddress):
        return UpstreamError(403, f"the connection to {host} is refused: {FORBIDDEN_MESSAGE}")
    if isinstance(error, TimeoutError):
        return UpstreamError(504, f"timed out waiting for {host}")
    return UpstreamError(502, f"cannot reach {host}: {_reason(inner)}")


def _reason(error: BaseException) -> str:
    if not isinstance(error, OSError):
        return type(error).__name__
    number = error.errno or 0
    return os.strerror(number) if number > 0 else error.strerror or type(error).__name__  # errors of getaddrinfo have negative numbers
