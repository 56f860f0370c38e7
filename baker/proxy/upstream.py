"""The servers that guests ask for: requests and tunnels to them, directly or through the proxy of the host's environment.

No connection is made to the host's loopback, to its link, or to the service that tells an instance in a cloud who it is: what listens
there trusts whoever asks. This is checked where a socket is made, so whatever a name resolves to, whenever. Where the host has a proxy,
that one resolves names; what resolves here to such an address is refused all the same.
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
LONGEST_LINE = 1 << 15
LONGEST_HEAD = 1 << 16
# Addresses at which clouds tell an instance who it is, outside of the link-local networks: Alibaba, Azure, AWS, Google
METADATA = tuple(ipaddress.ip_network(text) for text in ("100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::/32", "fd20:ce::254/128"))
FORBIDDEN = "bake does not connect guests to the host's loopback, to its link, or to a cloud's metadata service"


class UpstreamError(Exception):
    """No answer could be had; `status` is what a proxy says then."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Refused(OSError):
    """An address that guests must not reach through the host."""


class Guard:
    """Where connections may go: anywhere but to what is the host's alone, and there to the addresses in `allow`."""

    def __init__(self, allow: Collection[str] = ()) -> None:
        self._allowed = {ipaddress.ip_address(address) for address in allow}

    def check(self, address: str) -> None:
        """Refused when `address`, a numeric one, is not to be connected to."""
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            raise Refused(errno.EACCES, FORBIDDEN) from None  # 127.1, 2130706433: other ways to write one
        found = _embedded(found) or found
        special = found.is_loopback or found.is_link_local or found.is_unspecified or found.is_multicast
        if found not in self._allowed and (special or any(found in network for network in METADATA)):
            raise Refused(errno.EACCES, FORBIDDEN)

    def socket(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for an address as getaddrinfo gives it: the one way by which direct connections come to be."""
        family, kind, protocol, _, address = info
        self.check(str(address[0]))
        return socket.socket(family, kind, protocol)

    async def addresses(self, host: str, port: int) -> list[str]:
        """What `host` resolves to, at least one. Refused when any of that is not to be connected to."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        for address in addresses:
            self.check(address)
        return addresses


def _embedded(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    return address.ipv4_mapped or address.sixtofour or (ipaddress.IPv4Address(address.packed[12:]) if _is_nat64(address) else None)


def _is_nat64(address: ipaddress.IPv6Address) -> bool:
    return address in ipaddress.ip_network("64:ff9b::/96")


class Upstream:
    """Connections to servers, kept open between requests. An async context manager."""

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
        """Ask the server of `url`; its body is still to be read, with `chunks`. UpstreamError when there is no answer."""
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
        """UpstreamError for a host that is forbidden; one that does not resolve here is the proxy's business."""
        try:
            await self._guard.addresses(host, port)
        except socket.gaierror:
            return
        except OSError as error:
            raise _upstream_error(error, host) from error

    async def tunnel(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to `host`, for bytes that are between the guest and the server. UpstreamError when there is none."""
        proxy = proxy_for("https", host)
        if proxy:
            await self._check(host, port)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return await (_through(proxy, host, port) if proxy else self._connect(host, port))
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
    """The body as it comes, as it was sent. UpstreamError when it ends before its end."""
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise UpstreamError(502, "the connection ended in the middle") from error


def authorization(login: str) -> tuple[str, str]:
    """The header line that says the user and password of a URL."""
    return "Authorization", "Basic " + base64.b64encode(urllib.parse.unquote(login).encode()).decode()


def _session(socket_factory: Any) -> aiohttp.ClientSession:
    """A client that adds nothing to what it is told to send, and takes nothing away from what it gets."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, resolver=ThreadedResolver(), socket_factory=socket_factory),
        timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT),
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        read_bufsize=CHUNK,
        max_line_size=LONGEST_LINE,
        max_field_size=LONGEST_LINE,
    )


async def _through(proxy: str, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A tunnel through another proxy (RFC 9110, 9.3.6)."""
    parts = urllib.parse.urlsplit(proxy)
    reader, writer = await asyncio.open_connection(
        parts.hostname, parts.port or (443 if parts.scheme == "https" else 80), ssl=parts.scheme == "https" or None, limit=LONGEST_HEAD
    )
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    login = parts.netloc.rpartition("@")[0]
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
    lines += [f"Proxy-{name}: {value}" for name, value in ([authorization(login)] if login else [])]
    try:
        writer.write("\r\n".join((*lines, "", "")).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if not re.match(rb"HTTP/1\.\d 2\d\d", head):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the proxy of this host refuses")
    except BaseException:
        writer.close()
        raise
    return reader, writer


def _upstream_error(error: BaseException, host: str) -> UpstreamError:
    """`error` as what a proxy answers. Nothing of the URL but its host is told."""
    inner: BaseException = getattr(error, "os_error", None) or error
    if isinstance(certificate := getattr(error, "certificate_error", inner), ssl.SSLCertVerificationError):
        return UpstreamError(502, f"the certificate of {host} is not good: {certificate.verify_message}")
    if isinstance(inner, Refused):
        return UpstreamError(403, f"{host} is refused: {FORBIDDEN}")
    if isinstance(error, TimeoutError):
        return UpstreamError(504, f"{host} does not answer in time")
    return UpstreamError(502, f"cannot reach {host}: {_reason(inner)}")


def _reason(error: BaseException) -> str:
    if not isinstance(error, OSError):
        return type(error).__name__
    number = error.errno or 0
    return os.strerror(number) if number > 0 else error.strerror or type(error).__name__  # getaddrinfo's are below 0
