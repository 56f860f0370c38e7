"""HTTP(S) downloads that survive dropped connections: what has come is kept and the rest is asked for (RFC 9110, 14: range requests).

NAME.part        the bytes so far
NAME.validator   the ETag or Last-Modified they came with, for If-Range: another file under the same URL starts anew
"""

from __future__ import annotations

import random
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from baker.core.disk_space import host_error
from baker.core.errors import SourceError
from baker.core.http_env import proxy_for

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

CHUNK = 1 << 18
CONNECT_TIMEOUT, READ_TIMEOUT = 20.0, 60.0
FRUITLESS_TRIES = 5  # in a row, without one new byte
LONGEST_PAUSE = 30.0
PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")
MEANINGS = {401: "it wants a login", 403: "it does not let us have it", 404: "there is no such file", 410: "the file is gone"}


@dataclass(frozen=True)
class Download:
    """One file to be had from `url` (which may hold a user and password) into `part`."""

    url: str
    part: Path
    on_bytes: Callable[[int, int], None]  # bytes so far, total or 0
    pause: Callable[[float], None] = time.sleep

    @property
    def shown(self) -> str:
        return without_login(self.url)

    @property
    def validator(self) -> Path:
        return self.part.with_suffix(".validator")

    def run(self) -> None:
        """Fetch the whole file. SourceError when the server refuses, or does not send one new byte in several tries."""
        fruitless = 0
        with _pool(self.url) as pool:
            while fruitless < FRUITLESS_TRIES:
                before = self._size()
                reason, wait = self._try(pool)
                if reason is None:
                    return
                fruitless = 1 if self._size() > before else fruitless + 1
                if fruitless < FRUITLESS_TRIES:
                    self.pause(min(LONGEST_PAUSE, max(wait, 2.0 ** (fruitless - 1) * random.uniform(0.5, 1.0))))
        raise SourceError(
            f"cannot download {self.shown}: {reason} ({FRUITLESS_TRIES} tries)",
            hint="what has come so far is kept: build again to go on with it; a proxy is taken from http_proxy and https_proxy",
        )

    def forget(self) -> None:
        """Remove what has come so far."""
        self.part.unlink(missing_ok=True)
        self.validator.unlink(missing_ok=True)

    def _try(self, pool: PoolManager) -> tuple[str | None, float]:
        """One request: (None, 0) when the file is whole; else why not, and for how many seconds the server asked to be left alone."""
        from urllib3.exceptions import HTTPError

        try:
            response = pool.request("GET", self.url, headers=self._headers(), preload_content=False, redirect=True)
            try:
                return self._take(response)
            finally:
                response.close()
        except HTTPError as error:
            return _reason(error), 0.0
        except OSError as error:
            raise host_error(error, self.part) from error

    def _headers(self) -> dict[str, str]:
        from urllib3 import make_headers
        from urllib3.util import parse_url

        headers = {"User-Agent": "bake", "Accept-Encoding": "identity"}
        if login := parse_url(self.url).auth:
            headers |= make_headers(basic_auth=urllib.parse.unquote(login))
        if size := self._size():
            headers["Range"] = f"bytes={size}-"
            with suppress(OSError):
                headers["If-Range"] = self.validator.read_text()
        return headers

    def _take(self, response: BaseHTTPResponse) -> tuple[str | None, float]:
        status, size = response.status, self._size()
        first, total = _range(response.headers.get("Content-Range", ""))
        if status == 416 or (status == 206 and first != size):
            if size and size == total:
                return None, 0.0
            self.forget()
            return "what had come does not fit to what the server has now: starting anew", 0.0
        if status in PASSING_STATUS:
            return f"the server answered {status}", _seconds(response.headers.get("Retry-After", ""))
        if status not in (200, 206):
            raise SourceError(f"cannot download {self.shown}: the server answered {status}: {MEANINGS.get(status, 'bake cannot use that')}")
        if status == 200:
            size, total = 0, int(response.headers.get("Content-Length") or 0)
            self._remember(response)
        with self.part.open("r+b" if status == 206 else "wb") as file:
            file.seek(size)
            while chunk := response.read1(CHUNK):  # what has come, and no waiting for more: none of it is lost when the connection is
                file.write(chunk)
                size += len(chunk)
                self.on_bytes(size, total)
        return (None, 0.0) if not total or size == total else (f"the connection ended after {size} of {total} bytes", 0.0)

    def _remember(self, response: BaseHTTPResponse) -> None:
        """Keep the validator of a new file. A weak ETag is none for ranges (RFC 9110, 13.1.5)."""
        tag = response.headers.get("ETag", "")
        validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
        if validator:
            self.validator.write_text(validator)
        else:
            self.validator.unlink(missing_ok=True)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0


def without_login(url: str) -> str:
    """`url` without user and password, for people and records."""
    return re.sub(r"^([a-z]+://)[^/@]*@", r"\1", url, flags=re.IGNORECASE)


def _pool(url: str) -> PoolManager:
    """Connections to `url`, through the proxy that the environment names for it."""
    from urllib3 import PoolManager, ProxyManager, Retry, Timeout
    from urllib3.util import parse_url

    found = parse_url(url)
    timeout, retries = (
        Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT),
        Retry(total=10, connect=0, read=0, other=0, status=0, redirect=10),
    )
    proxy = proxy_for(found.scheme or "http", found.host or "")
    return ProxyManager(proxy, timeout=timeout, retries=retries) if proxy else PoolManager(timeout=timeout, retries=retries)


def _range(value: str) -> tuple[int | None, int]:
    """The first byte and the total of a Content-Range header; total 0 when unknown."""
    found = CONTENT_RANGE.match(value)
    if not found:
        return None, 0
    return int(found[1]) if found[1] else None, int(found[2]) if found[2] != "*" else 0


def _seconds(retry_after: str) -> float:
    return min(float(retry_after), LONGEST_PAUSE) if retry_after.isdigit() else 0.0


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", None) or error
    text = str(inner)
    text = text.partition(": ")[2] if text.startswith("<") else text
    return text or type(inner).__name__
