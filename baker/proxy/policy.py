"""What a cache may keep, for how long, and what it answers with: RFC 9111 as pure functions.

No freshness is guessed. A response is fresh for as long as its server said, and without an end if its path names its content:
packages in the pool of a Debian archive (a changed package has another version, so another name), and indexes by hash. All
else is asked for again, with the validators of what is kept.

Header fields are mappings with names in lower case; several lines of one name are joined (RFC 9110, 5.3). Times are seconds since
the epoch.
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
# of one delivery, not of what was delivered
OF_DELIVERY = frozenset({
    "alt-svc", "cf-cache-status", "cf-ray", "nel", "report-to", "server-timing", "set-cookie", "set-cookie2", "via", "x-cache",
    "x-cache-hits", "x-served-by", "x-timer",
})  # fmt: skip
CREDENTIALS = frozenset({"authorization", "cookie", "cookie2"})
CONDITIONS = frozenset({"if-none-match", "if-modified-since"})
OF_BODY = frozenset({"content-encoding", "content-length", "content-range", "content-type"})  # a 304 has no say in them
OF_NOT_MODIFIED = frozenset({"age", "cache-control", "content-location", "date", "etag", "expires", "last-modified", "vary"})
UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})
DEFAULT_PORTS = {"http": 80, "https": 443}

DIRECTIVE = re.compile(r"""([\w!#$%&'*+.^`|~-]+)(?:\s*=\s*(?:"([^"]*)"|([^\s,"]*)))?""")
ENTITY_TAG = re.compile(r'(?:W/)?"[^"]*"')
RANGE = re.compile(r"bytes=(\d*)-(\d*)")
HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")
IN_POOL = re.compile(r"https?://[^/?]+(?:/[^?]*)?/pool/[^?]+\.u?deb")
BY_HASH = re.compile(r"https?://[^/?]+/[^?]*/by-hash/SHA256/([0-9a-f]{64})")


@dataclass(frozen=True)
class Target:
    """What a request to a proxy names: a URL in one spelling, without fragment and login; `login` is the user and password it had."""

    url: str
    login: str = ""

    @property
    def shown(self) -> str:
        """The URL for people and logs: a query may hold a token."""
        return self.url.partition("?")[0]


@dataclass(frozen=True)
class Response:
    """A response of `url`, with the times that it was asked for and received at."""

    url: str
    fields: Fields
    requested_at: float
    received_at: float


def target(raw: str) -> Target:
    """The target of a request line in absolute form. ValueError when it is none that a proxy can fetch."""
    if not raw.isascii() or not raw.isprintable() or " " in raw or "\\" in raw:
        raise ValueError("not a URL")
    parts = urllib.parse.urlsplit(raw.partition("#")[0])
    login, _, authority = parts.netloc.rpartition("@")
    port = parts.port  # ValueError unless it is a number that can be one
    host = (parts.hostname or "").lower()
    if ":" in host or host.replace(".", "").isdigit():
        ipaddress.ip_address(host)  # ValueError for the other ways to write one, like 127.1
    host = f"[{host}]" if ":" in host else host
    if parts.scheme not in DEFAULT_PORTS or not HOST.fullmatch(host) or not authority.lower().startswith(host):
        raise ValueError("not an absolute http URL")
    place = host if port in (None, DEFAULT_PORTS[parts.scheme]) else f"{host}:{port}"
    query = f"?{parts.query}" if parts.query else ""
    return Target(f"{parts.scheme}://{place}{parts.path or '/'}{query}", login)


def place(url: str) -> tuple[str, int]:
    """The host and port that `url`, in the spelling of a target, leads to."""
    parts = urllib.parse.urlsplit(url)
    return parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]


def fields(lines: Lines) -> dict[str, str]:
    """Header lines as a mapping: names in lower case, several lines of one name joined."""
    found: dict[str, str] = {}
    for name, value in lines:
        key = name.lower()
        found[key] = f"{found[key]}, {value.strip()}" if key in found else value.strip()
    return found


# --- what may be kept ------------------------------------------------------------------------------------------------


def immutable(url: str) -> bool:
    """Whether the path of `url` names its content, so that what it had once is what it always has."""
    return bool(IN_POOL.fullmatch(url) or BY_HASH.fullmatch(url))


def promised_digest(url: str) -> str | None:
    """The digest of what `url` has, where its path says that."""
    found = BY_HASH.fullmatch(url)
    return f"sha256:{found[1]}" if found else None


def cacheable(method: str, request: Fields) -> bool:
    """Whether the cache has anything to do with a request: who asks with credentials speaks to the server alone."""
    return method in ("GET", "HEAD") and not CREDENTIALS & request.keys() and not has_body(request)


def storable(method: str, request: Fields, status: int, response: Response) -> bool:
    """Whether a response may be kept (RFC 9111, 3), for everybody who asks the same."""
    found = response.fields
    return (
        method == "GET"
        and status == 200
        and cacheable(method, request)
        and "range" not in request
        and "no-store" not in directives(request)
        and not {"no-store", "private"} & directives(found).keys()
        and not {"set-cookie", "set-cookie2", "content-range"} & found.keys()
        and "*" not in found.get("vary", "")
        and bool({"content-length", "transfer-encoding"} & found.keys())  # else nobody can tell a whole body from a torn one
        and not (immutable(response.url) and "text/html" in found.get("content-type", "").lower())  # the page of a login or an outage
    )


def kept_lines(lines: Lines) -> tuple[tuple[str, str], ...]:
    """The header lines that are kept with a body: what describes it, not the way that it came."""
    return tuple((name, value) for name, value in end_to_end(lines) if name.lower() not in OF_DELIVERY)


def end_to_end(lines: Lines) -> tuple[tuple[str, str], ...]:
    """The header lines that a proxy passes on: without those of the connection (RFC 9110, 7.6.1)."""
    lines = tuple(lines)
    named = {name.strip().lower() for line, value in lines if line.lower() == "connection" for name in value.split(",")}
    return tuple((name, value) for name, value in lines if name.lower() not in HOP_BY_HOP | named)


def renewed_lines(kept: Lines, not_modified: Lines) -> tuple[tuple[str, str], ...]:
    """The kept header lines after a 304, which brings some of them anew (RFC 9111, 3.2)."""
    new = tuple((name, value) for name, value in kept_lines(not_modified) if name.lower() not in OF_BODY)
    replaced = {name.lower() for name, _ in new} | {"age", "date"}
    return (*((name, value) for name, value in kept if name.lower() not in replaced), *new)


def varying(request: Fields, response: Fields) -> dict[str, str]:
    """What the response depends on: the request's fields that `Vary` names, "" where it has none."""
    names = {name.strip().lower() for name in response.get("vary", "").split(",")} - {""}
    return {name: request.get(name, "") for name in sorted(names)}


def same_variant(varied: Fields, request: Fields) -> bool:
    """Whether a response that was chosen by `varied` is the one for `request`."""
    return all(request.get(name, "") == value for name, value in varied.items())


# --- how long it is good ---------------------------------------------------------------------------------------------


def lifetime(response: Response) -> float:
    """For how many seconds the response is fresh, counted from when its server made it (RFC 9111, 4.2.1); nothing is guessed."""
    if immutable(response.url):
        return math.inf
    found = directives(response.fields)
    if "no-cache" in found:
        return 0.0
    for name in ("s-maxage", "max-age"):
        if name in found:
            return _seconds(found[name])
    if "expires" in response.fields:
        expires = _time(response.fields["expires"])
        made = _time(response.fields.get("date", ""))
        return max(0.0, expires - (response.received_at if made is None else made)) if expires is not None else 0.0
    return 0.0


def age(response: Response, now: float) -> float:
    """How many seconds ago the server made the response, as far as one can know (RFC 9111, 4.2.3)."""
    made = _time(response.fields.get("date", ""))
    apparent = 0.0 if made is None else max(0.0, response.received_at - made)
    corrected = _seconds(response.fields.get("age", "")) + response.received_at - response.requested_at
    return max(apparent, corrected) + max(0.0, now - response.received_at)


def fresh(response: Response, now: float) -> bool:
    """Whether the response may be given out without asking its server."""
    return lifetime(response) > age(response, now)


def usable(request: Fields, response: Response, now: float) -> bool:
    """Whether the response is fresh, and fresh enough for who asks (RFC 9111, 5.2.1).

    A reload (`max-age=0`, as apt asks for every index) does not reach what is immutable (RFC 8246); `no-cache` does.
    """
    asked = directives(request)
    if "no-cache" in asked or ("cache-control" not in request and "no-cache" in request.get("pragma", "").lower()):
        return False
    if not fresh(response, now):
        return False
    if lifetime(response) - age(response, now) < _seconds(asked.get("min-fresh", "0")):
        return False
    lasting = immutable(response.url) or "immutable" in directives(response.fields)
    return lasting or "max-age" not in asked or age(response, now) <= _seconds(asked["max-age"])


# --- asking again, and answering who asks again ----------------------------------------------------------------------


def validators(response: Fields) -> dict[str, str]:
    """The conditions under which a server need not send again what is kept; none if it gave nothing to tell by."""
    pairs = (("If-None-Match", "etag"), ("If-Modified-Since", "last-modified"))
    return {condition: response[name] for condition, name in pairs if response.get(name)}


def not_modified(request: Fields, response: Fields) -> bool:
    """Whether who asks has the current response already (RFC 9110, 13.2.2)."""
    if "if-none-match" in request:
        asked = request["if-none-match"]
        current = response.get("etag", "").removeprefix("W/")
        return asked.strip() == "*" or bool(current and current in {tag.removeprefix("W/") for tag in ENTITY_TAG.findall(asked)})
    since, changed = _time(request.get("if-modified-since", "")), _time(response.get("last-modified", ""))
    return since is not None and changed is not None and changed <= since


def byte_range(request: Fields, response: Fields, size: int) -> range | None:
    """The positions that a request wants of `size` bytes: None for all of them, an empty range for none that there are.

    Only one range in a request; who asks for several, or under a condition that does not hold, gets everything.
    """
    found = RANGE.fullmatch(request.get("range", "").replace(" ", ""))
    if not found or not (found[1] or found[2]) or not _condition_holds(request.get("if-range"), response):
        return None
    if not found[1]:
        return range(max(0, size - int(found[2])), size)
    first, last = int(found[1]), int(found[2] or size)
    return range(first, min(last + 1, size)) if last >= first else None


def _condition_holds(if_range: str | None, response: Fields) -> bool:
    """RFC 9110, 13.1.5: only a strong validator says that two parts belong together."""
    if if_range is None:
        return True
    return not if_range.startswith("W/") and if_range in (response.get("etag"), response.get("last-modified"))


def directives(found: Fields) -> dict[str, str]:
    """The directives of `Cache-Control`, names in lower case; the first one of a name counts."""
    result: dict[str, str] = {}
    for name, quoted, plain in DIRECTIVE.findall(found.get("cache-control", "")):
        result.setdefault(name.lower(), quoted or plain)
    return result


def has_body(request: Fields) -> bool:
    return "transfer-encoding" in request or request.get("content-length", "0") != "0"


def _seconds(value: str) -> float:
    """Delta seconds; 0 for what is none, so that it counts as stale."""
    return float(value) if value.isascii() and value.isdigit() else 0.0


def _time(value: str) -> float | None:
    try:
        found = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
