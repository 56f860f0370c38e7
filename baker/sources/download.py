"""HTTP(S) downloads that survive dropped connections: received bytes are kept and the rest is requested (RFC 9110, section 14).

NAME.part        the bytes received so far
NAME.validator   the ETag or Last-Modified of these bytes, sent as If-Range: when the file at the URL has changed, the download restarts
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
CONNECT_TIMEOUT, READ_TIMEOUT = 20.0, 60.0  # seconds
TRIES_WITHOUT_PROGRESS = 5  # consecutive tries without a new byte before the download fails
LONGEST_PAUSE = 30.0  # seconds
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")
STATUS_MEANINGS = {401: "a login is required", 403: "access is forbidden", 404: "there is no such file", 410: "the file was removed"}


@dataclass(frozen=True)
class Download:
    """The download of one file from `url`, which may contain a user and password, into the file `part`."""

    url: str
    part: Path
    on_bytes: Callable[[int, int], None]  # bytes so far, total or 0
    pause: Callable[[float], None] = time.sleep

    @property
    def display_url(self) -> str:
        """The URL without user and password."""
        return without_login(self.url)

    @property
    def validator(self) -> Path:
        return self.part.with_suffix(".validator")

    def run(self) -> None:
        """Fetch the whole file. SourceError when the server refuses, or sends no new byte in TRIES_WITHOUT_PROGRESS tries."""
        fruitless = 0  # consecutive tries that brought no new byte
        with _pool(self.url) as pool:
            while fruitless < TRIES_WITHOUT_PROGRESS:
                before = self._size()
                reason, wait = self._try(pool)
                if reason is None:
                    return
                fruitless = 1 if self._size() > before else fruitless + 1
                if fruitless < TRIES_WITHOUT_PROGRESS:
                    self.pause(min(LONGEST_PAUSE, max(wait, 2.0 ** (fruitless - 1) * random.uniform(0.5, 1.0))))
        raise SourceError(
            f"cannot download {self.display_url}: {reason} ({TRIES_WITHOUT_PROGRESS} tries)",
            hint="the bytes received so far are kept: build again to resume; a proxy is read from http_proxy and https_proxy",
            code="source.download-failed",
        )

    def discard(self) -> None:
        """Remove the bytes received so far."""
        self.part.unlink(missing_ok=True)
        self.validator.unlink(missing_ok=True)

    def _try(self, pool: PoolManager) -> tuple[str | None, float]:
        """Make one request. Returns (None, 0) when the file is complete, else (the reason, the seconds in the server's Retry-After)."""
        from urllib3.exceptions import HTTPError

        try:
            response = pool.request("GET", self.url, headers=self._headers(), preload_content=False, redirect=True)
            try:
                return self._receive(response)
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

    def _receive(self, response: BaseHTTPResponse) -> tuple[str | None, float]:
        """Read a response into the file. Returns as `_try` does; SourceError when the server refuses."""
        status, size = response.status, self._size()
        first, total = _range(response.headers.get("Content-Range", ""))
        if status == 416 or (status == 206 and first != size):
            if size and size == total:
                return None, 0.0
            self.discard()
            return "the file on the server has changed since the download began: restarting the download", 0.0
        if status in TRANSIENT_STATUS:
            return f"the server answered {status}", _seconds(response.headers.get("Retry-After", ""))
        if status not in (200, 206):
            meaning = STATUS_MEANINGS.get(status, "bake cannot use this answer")
            raise SourceError(
                f"cannot download {self.display_url}: the server answered {status}: {meaning}", code="source.download-refused"
            )
        if status == 200:
            size, total = 0, int(response.headers.get("Content-Length") or 0)
            self._remember(response)
        with self.part.open("r+b" if status == 206 else "wb") as file:
            file.seek(size)
            while chunk := response.read1(CHUNK):  # returns what has arrived without waiting, so a lost connection loses no received byte
                file.write(chunk)
                size += len(chunk)
                self.on_bytes(size, total)
        return (None, 0.0) if not total or size == total else (f"the connection ended after {size} of {total} bytes", 0.0)

    def _remember(self, response: BaseHTTPResponse) -> None:
        """Store the validator of a new file. A weak ETag must not be used in If-Range (RFC 9110, section 13.1.5)."""
        tag = response.headers.get("ETag", "")
        validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
        if validator:
            self.validator.write_text(validator)
        else:
            self.validator.unlink(missing_ok=True)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0


def without_login(url: str) -> str:
    """`url` without user and password, for messages and records."""
    return re.sub(r"^([a-z]+://)[^/@]*@", r"\1", url, flags=re.IGNORECASE)


def _pool(url: str) -> PoolManager:
    """A connection pool for `url`, through the proxy that the environment names for its host."""
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
    """(first byte, total size) of a Content-Range header: None for an unknown first byte, 0 for an unknown total."""
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
