"""The rules of an HTTP cache (RFC 9111) as pure functions: which responses it may store and serve, and for how long.

Freshness is never estimated. A response is fresh for as long as its server says, and forever if its path identifies its content:
packages in the pool of a Debian archive (a changed package has another version, so another name), and indexes by hash. Everything
else is revalidated with the server.

Header fields are mappings with names in lower case; several lines of one name are joined (RFC 9110, 5.3). Times are seconds since
1970.
"""

from __future__ import annotations

import ipaddress
import math
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

Fields = Mapping[str, str]
Lines = Iterable[tuple[str, str]]

HOP_BY_HOP = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authentication-info", "proxy-authorization", "proxy-connection",
    "te", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip
# header fields that describe one delivery of a response, not the response itself
DELIVERY_FIELDS = frozenset({
    "alt-svc", "cf-cache-status", "cf-ray", "nel", "report-to", "server-timing", "set-cookie", "set-cookie2", "via", "x-cache",
    "x-cache-hits", "x-served-by", "x-timer",
})  # fmt: skip
CREDENTIALS = frozenset({"authorization", "cookie", "cookie2"})
CONDITIONS = frozenset({"if-none-match", "if-modified-since"})
BODY_FIELDS = frozenset({"content-encoding", "content-length", "content-range", "content-type"})  # not updated by a 304
NOT_MODIFIED_FIELDS = frozenset({"age", "cache-control", "content-location", "date", "etag", "expires", "last-modified", "vary"})
UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})  # methods that may change the resource
DEFAULT_PORTS = {"http": 80, "https": 443}

DIRECTIVE = re.compile(r"""([\w!#$%&'*+.^`|~-]+)(?:\s*=\s*(?:"([^"]*)"|([^\s,"]*)))?""")
ENTITY_TAG = re.compile(r'(?:W/)?"[^"]*"')
RANGE = re.compile(r"bytes=(\d*)-(\d*)")
HOST_NAME = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")
POOL_PATH = re.compile(r"https?://[^/?]+(?:/[^?]*)?/pool/[^?]+\.u?deb")
BY_HASH_PATH = re.compile(r"https?://[^/?]+/[^?]*/by-hash/SHA256/([0-9a-f]{64})")


@dataclass(frozen=True)
class Target:
    """The target of a request to a proxy: the URL, normalized, without fragment and login, and the login ("user:password") it had."""

    url: str
    login: str = ""

    @property
    def url_without_query(self) -> str:
        """The URL for logs and messages; a query may contain a token."""
        return self.url.partition("?")[0]


@dataclass(frozen=True)
class Response:
    """The header fields of a response to a request for `url`, and the times of request and response."""

    url: str
    fields: Fields
    requested_at: float
    received_at: float


def target(raw: str) -> Target:
    """Parse the target of a request line in absolute form. ValueError when a proxy cannot fetch it."""
    if not raw.isascii() or not raw.isprintable() or " " in raw or "\\" in raw:
        raise ValueError("not a URL")
    parts = urllib.parse.urlsplit(raw.partition("#")[0])
    login, _, authority = parts.netloc.rpartition("@")
    port = parts.port  # ValueError unless it is a valid port number
    host = (parts.hostname or "").lower()
    if ":" in host or host.replace(".", "").isdigit():
        ipaddress.ip_address(host)  # ValueError for other spellings of an address, such as 127.1
    host = f"[{host}]" if ":" in host else host
    if parts.scheme not in DEFAULT_PORTS or not HOST_NAME.fullmatch(host) or not authority.lower().startswith(host):
        raise ValueError("not an absolute http URL")
    origin = host if port in (None, DEFAULT_PORTS[parts.scheme]) else f"{host}:{port}"
    query = f"?{parts.query}" if parts.query else ""
    return Target(f"{parts.scheme}://{origin}{parts.path or '/'}{query}", login)


def host_and_port(url: str) -> tuple[str, int]:
    """The host and port of the normalized URL of a target."""
    parts = urllib.parse.urlsplit(url)
    return parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]


def fields(lines: Lines) -> dict[str, str]:
    """Convert header lines to a mapping with names in lower case; several lines of one name are joined."""
    result: dict[str, str] = {}
    for name, value in lines:
        key = name.lower()
        result[key] = f"{result[key]}, {value.strip()}" if key in result else value.strip()
    return result


# --- what may be stored ----------------------------------------------------------------------------------------------


def immutable(url: str) -> bool:
    """Whether the path of `url` identifies its content, so that it never changes."""
    return bool(POOL_PATH.fullmatch(url) or BY_HASH_PATH.fullmatch(url))


def promised_digest(url: str) -> str | None:
    """The digest that the path of `url` gives for its content; None when it gives none."""
    match = BY_HASH_PATH.fullmatch(url)
    return f"sha256:{match[1]}" if match else None


def cacheable(method: str, request: Fields) -> bool:
    """Whether the cache handles a request. A request with credentials or a body always goes to the server."""
    return method in ("GET", "HEAD") and not CREDENTIALS & request.keys() and not has_body(request)


def storable(method: str, request: Fields, status: int, response: Response) -> bool:
    """Whether a response may be stored (RFC 9111, section 3) and served to all clients."""
    received = response.fields
    return (
        method == "GET"
        and status == 200
        and cacheable(method, request)
        and "range" not in request
        and "no-store" not in directives(request)
        and not {"no-store", "private"} & directives(received).keys()
        and not {"set-cookie", "set-cookie2", "content-range"} & received.keys()
        and "*" not in received.get("vary", "")
        and bool({"content-length", "transfer-encoding"} & received.keys())  # otherwise a truncated body looks complete
        # a page in place of a package is a login form or an error message
        and not (immutable(response.url) and "text/html" in received.get("content-type", "").lower())
    )


def stored_lines(lines: Lines) -> tuple[tuple[str, str], ...]:
    """The header lines that are stored with a body: those that describe the response, not its delivery."""
    return tuple((name, value) for name, value in end_to_end(lines) if name.lower() not in DELIVERY_FIELDS)


def end_to_end(lines: Lines) -> tuple[tuple[str, str], ...]:
    """The header lines that a proxy forwards: all except those about the connection (RFC 9110, 7.6.1)."""
    lines = tuple(lines)
    named = {name.strip().lower() for line, value in lines if line.lower() == "connection" for name in value.split(",")}
    return tuple((name, value) for name, value in lines if name.lower() not in HOP_BY_HOP | named)


def renewed_lines(stored: Lines, not_modified: Lines) -> tuple[tuple[str, str], ...]:
    """The stored header lines, updated with those of a 304 (RFC 9111, 3.2)."""
    new = tuple((name, value) for name, value in stored_lines(not_modified) if name.lower() not in BODY_FIELDS)
    replaced = {name.lower() for name, _ in new} | {"age", "date"}
    return (*((name, value) for name, value in stored if name.lower() not in replaced), *new)


def selecting_fields(request: Fields, response: Fields) -> dict[str, str]:
    """The request's fields that `Vary` names, which selected this response; "" for a field that the request lacks."""
    names = {name.strip().lower() for name in response.get("vary", "").split(",")} - {""}
    return {name: request.get(name, "") for name in sorted(names)}


def same_variant(selecting: Fields, request: Fields) -> bool:
    """Whether a response that was selected by the request fields `selecting` is also the one for `request`."""
    return all(request.get(name, "") == value for name, value in selecting.items())


# --- freshness -------------------------------------------------------------------------------------------------------


def lifetime(response: Response) -> float:
    """The freshness lifetime in seconds, from the time that the server generated the response (RFC 9111, 4.2.1)."""
    if immutable(response.url):
        return math.inf
    given = directives(response.fields)
    if "no-cache" in given:
        return 0.0
    for name in ("s-maxage", "max-age"):
        if name in given:
            return _seconds(given[name])
    if "expires" in response.fields:
        expires = _time(response.fields["expires"])
        generated = _time(response.fields.get("date", ""))
        return max(0.0, expires - (response.received_at if generated is None else generated)) if expires is not None else 0.0
    return 0.0


def age(response: Response, now: float) -> float:
    """The estimated seconds since the server generated the response (RFC 9111, 4.2.3)."""
    generated = _time(response.fields.get("date", ""))
    apparent = 0.0 if generated is None else max(0.0, response.received_at - generated)
    corrected = _seconds(response.fields.get("age", "")) + response.received_at - response.requested_at
    return max(apparent, corrected) + max(0.0, now - response.received_at)


def fresh(response: Response, now: float) -> bool:
    """Whether the response may be served without asking its server."""
    return lifetime(response) > age(response, now)


def usable(request: Fields, response: Response, now: float) -> bool:
    """Whether the response is fresh, and fresh enough for this request (RFC 9111, 5.2.1).

    A reload (`max-age=0`, which apt sends for every index) does not affect an immutable response (RFC 8246); `no-cache` does.
    """
    requested = directives(request)
    if "no-cache" in requested or ("cache-control" not in request and "no-cache" in request.get("pragma", "").lower()):
        return False
    if not fresh(response, now):
        return False
    if lifetime(response) - age(response, now) < _seconds(requested.get("min-fresh", "0")):
        return False
    unchanging = immutable(response.url) or "immutable" in directives(response.fields)
    return unchanging or "max-age" not in requested or age(response, now) <= _seconds(requested["max-age"])


# --- conditional and range requests ----------------------------------------------------------------------------------


def validators(response: Fields) -> dict[str, str]:
    """The header fields that make a request for a stored response conditional; empty when the response has no validator."""
    pairs = (("If-None-Match", "etag"), ("If-Modified-Since", "last-modified"))
    return {condition: response[name] for condition, name in pairs if response.get(name)}


def not_modified(request: Fields, response: Fields) -> bool:
    """Whether the client already has the current response, by the conditions of its request (RFC 9110, 13.2.2)."""
    if "if-none-match" in request:
        tags = request["if-none-match"]
        current = response.get("etag", "").removeprefix("W/")
        return tags.strip() == "*" or bool(current and current in {tag.removeprefix("W/") for tag in ENTITY_TAG.findall(tags)})
    since, changed = _time(request.get("if-modified-since", "")), _time(response.get("last-modified", ""))
    return since is not None and changed is not None and changed <= since


def byte_range(request: Fields, response: Fields, size: int) -> range | None:
    """The bytes that a request asks for, of `size` bytes: None for all, an empty range when none of them exist.

    A request for several ranges, or with a condition that does not hold, gets all bytes.
    """
    match = RANGE.fullmatch(request.get("range", "").replace(" ", ""))
    if not match or not (match[1] or match[2]) or not _condition_holds(request.get("if-range"), response):
        return None
    if not match[1]:
        return range(max(0, size - int(match[2])), size)
    first, last = int(match[1]), int(match[2] or size)
    return range(first, min(last + 1, size)) if last >= first else None


def _condition_holds(if_range: str | None, response: Fields) -> bool:
    """Whether the condition of a range request holds (RFC 9110, 13.1.5). Only a strong validator can make it hold."""
    if if_range is None:
        return True
    return not if_range.startswith("W/") and if_range in (response.get("etag"), response.get("last-modified"))


def directives(header: Fields) -> dict[str, str]:
    """The directives of `Cache-Control` with their values; names in lower case, the first of several with one name."""
    result: dict[str, str] = {}
    for name, quoted, plain in DIRECTIVE.findall(header.get("cache-control", "")):
        result.setdefault(name.lower(), quoted or plain)
    return result


def has_body(request: Fields) -> bool:
    """Whether a request has a body."""
    return "transfer-encoding" in request or request.get("content-length", "0") != "0"


def _seconds(value: str) -> float:
    """Parse a number of seconds; 0 for an invalid one, so that the response counts as stale."""
    return float(value) if value.isascii() and value.isdigit() else 0.0


def _time(value: str) -> float | None:
    """Parse an HTTP date into seconds since 1970; None for an invalid one."""
    try:
        parsed = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
