"""The handling of one request of a guest: answered from the cache, from the server, or from the cache after the server confirmed it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

import aiohttp
from aiohttp import web

from baker.core.errors import HostError
from baker.core.model import Fetched
from baker.proxy import policy
from baker.proxy.recording import Recording, Replay
from baker.proxy.store import Entry, IncomingFile, Store, StoredResponse
from baker.proxy.upstream import CHUNK, Upstream, UpstreamError, authorization, chunks

VIA = "1.1 bake"
PARTIAL = frozenset({"range", "if-range"}) | policy.CONDITIONS
How = Literal["hit", "revalidated", "miss", "passed", "failed"]


@dataclass
class Served:
    """The outcome of a request. `digest` is that of the body in the cache, if it is stored."""

    method: str
    url: str  # without its query
    how: How = "failed"
    status: int = 0
    from_cache: int = 0  # bytes of the body
    fetched: int = 0
    digest: str = ""


class Cache:
    """Answers requests in absolute form from `store` and, when that does not suffice, from `upstream`.

    `served` is called with the outcome of every request, `warn` with warnings. `offline`, `recording` and `replay` are as in
    `baker.proxy.proxy.http_cache`.
    """

    def __init__(
        self,
        store: Store,
        upstream: Upstream,
        *,
        served: Callable[[Served], None],
        warn: Callable[[str], None],
        offline: bool = False,
        recording: Recording | None = None,
        replay: Replay | None = None,
    ) -> None:
        self.recording = recording
        self.replay = replay
        self.store = store
        self.upstream = upstream
        self.served = served
        self.offline = offline
        self._warn = warn
        self._warned = False

    async def answer(self, request: web.BaseRequest, base: str = "") -> web.StreamResponse:
        """Handle a request of the web server. Errors are answered to the client; nothing that may contain a secret is logged.

        `base`: in an intercepted tunnel, the origin that the client has connected to.
        """
        try:
            target = policy.target(base + request.raw_path if base else request.raw_path)
        except ValueError:
            return _problem(400, f"this is a proxy: {request.method} needs an absolute http URL")
        exchange = Exchange(self, request, target)
        try:
            return await exchange.run()
        except UpstreamError as error:
            return exchange.problem(error.status, str(error))
        except ConnectionError:
            return exchange.broken()  # the client has closed the connection
        finally:
            self.served(exchange.served)

    def record(self, fetched: Fetched, body: IncomingFile | Path | None) -> None:
        """Record a response, if this build is recorded. After a failure the recording is incomplete and nothing more is recorded."""
        if self.recording is not None:
            try:
                self.recording.add(fetched, body)
            except HostError as error:
                self.recording.mark_incomplete()
                self.recording = None
                self._warn(f"further downloads of this build cannot be recorded: {error.message}")

    def unwritable(self, error: HostError) -> None:
        """Warn once that the cache cannot be written, which is no reason to fail a build."""
        if not self._warned:
            self._warn(f"the HTTP cache cannot be written: {error.message}")
        self._warned = True


class Exchange:
    """One request and its answer."""

    def __init__(self, cache: Cache, request: web.BaseRequest, target: policy.Target) -> None:
        self.cache = cache
        self.request = request
        self.url = target.url
        self.lines = tuple(request.headers.items())
        if target.login and "Authorization" not in request.headers:
            self.lines += (authorization(target.login),)
        self.fields = policy.fields(self.lines)
        if cache.recording or cache.replay:  # request complete responses only, so that they suit every client
            self.lines = tuple((name, value) for name, value in self.lines if name.lower() not in PARTIAL)
            self.fields = policy.fields(self.lines)
        self.served = Served(request.method, target.url_without_query)
        self.reply: web.StreamResponse | None = None

    async def run(self) -> web.StreamResponse:
        """Answer the request. UpstreamError when there is no answer."""
        if self.cache.replay is not None:
            return await self._answer_from_recording(self.cache.replay)
        if not policy.cacheable(self.request.method, self.fields):
            return await self._fetch(None)
        with self.cache.store.find("GET", self.url, self.fields) as stored:
            if stored and (self.cache.offline or policy.usable(self.fields, stored.entry.response, time.time())):
                return await self._answer_from_cache(stored, "hit")
            return await self._fetch(stored)

    # --- from the server -----------------------------------------------------------------------------------------

    async def _fetch(self, stored: StoredResponse | None) -> web.StreamResponse:
        """Ask the server, conditionally when the response `stored` has validators."""
        if self.cache.offline or "only-if-cached" in policy.directives(self.fields):
            return self.problem(504, f"{self.served.url} is not in the cache")
        conditions = {} if stored is None or "range" in self.fields else policy.validators(stored.entry.response.fields)
        requested_at = time.time()
        body = self.request.content.iter_any() if policy.has_body(self.fields) else None
        try:
            async with self.cache.upstream.request(self.request.method, self.url, self._request_lines(conditions), body) as response:
                received_at = time.time()
                if stored and conditions and response.status == 304:
                    return await self._answer_from_cache(self._renewed(stored, response, requested_at, received_at), "revalidated")
                if response.status < 500 or not self._usable_without_server(stored):
                    return await self._forward(response, requested_at, received_at)
        except UpstreamError:
            if self.reply is not None or not self._usable_without_server(stored):
                raise
        assert stored is not None
        return await self._answer_from_cache(stored, "hit")

    def _usable_without_server(self, stored: StoredResponse | None) -> bool:
        """Whether a stored response may be served although the server fails: it is fresh, only the client asked for revalidation."""
        return stored is not None and policy.fresh(stored.entry.response, time.time())

    def _request_lines(self, conditions: dict[str, str]) -> list[tuple[str, str]]:
        ours = {"host", "via", "expect"} | (policy.CONDITIONS if conditions else set())
        lines = [(name, value) for name, value in policy.end_to_end(self.lines) if name.lower() not in ours]
        return [*lines, *conditions.items(), ("Via", ", ".join(filter(None, (self.fields.get("via"), VIA))))]

    def _renewed(self, stored: StoredResponse, response: aiohttp.ClientResponse, requested_at: float, received_at: float) -> StoredResponse:
        lines = policy.renewed_lines(stored.entry.headers, response.headers.items())
        try:
            return StoredResponse(self.cache.store.renew(stored.entry, lines, requested_at, received_at), stored.body)
        except HostError as error:
            self.cache.unwritable(error)
            return stored

    async def _forward(self, response: aiohttp.ClientResponse, requested_at: float, received_at: float) -> web.StreamResponse:
        """Forward the server's response to the client, and store or record it if allowed."""
        lines = policy.end_to_end(response.headers.items())
        known = policy.Response(self.url, policy.fields(response.headers.items()), requested_at, received_at)
        caching = policy.cacheable(self.request.method, self.fields)
        self.served.how = "miss" if caching else "passed"
        if caching and response.status == 200 and policy.not_modified(self.fields, known.fields):
            return await self._not_modified(lines)  # the stored response is outdated, but the client has the new one
        if self.request.method in policy.UNSAFE and response.status < 400:
            self.cache.store.forget("GET", self.url)
        reply = await self._start(response.status, lines, response.reason)
        if policy.storable(self.request.method, self.fields, response.status, known):
            await self._forward_and_store(response, reply, known)
        elif self.cache.recording is not None:
            await self._forward_and_record(self.cache.recording, response, reply)
        else:
            async for chunk in chunks(response):
                self.served.fetched += len(chunk)
                await reply.write(chunk)
        await reply.write_eof()
        return reply

    async def _forward_and_store(self, response: aiohttp.ClientResponse, reply: web.StreamResponse, known: policy.Response) -> None:
        """Forward a body and store it. The client gets the last chunk after the body is stored, so that the next request finds it."""
        last = b""
        with self.cache.store.incoming() as incoming:
            async for chunk in chunks(response):
                self.served.fetched += len(chunk)
                incoming.write(chunk)
                if last:
                    await reply.write(last)
                last = chunk
            await self._store(incoming, known, policy.stored_lines(response.headers.items()))
        await reply.write(last)

    async def _forward_and_record(self, recording: Recording, response: aiohttp.ClientResponse, reply: web.StreamResponse) -> None:
        """Forward a body that the cache does not store and record it, unless it may be confidential."""
        private = "requested with credentials" if policy.CREDENTIALS & self.fields.keys() else ""
        private = private or ("requested with a body" if policy.has_body(self.fields) else "")
        with recording.incoming() as incoming:
            async for chunk in chunks(response):
                self.served.fetched += len(chunk)
                incoming.write(b"" if private else chunk)
                await reply.write(chunk)
            lines = () if private else policy.stored_lines(response.headers.items())
            fetched = Fetched(self.request.method, self.url, response.status, lines, why=private)
            if private:
                self.cache.record(fetched, None)
            else:
                self.cache.record(replace(fetched, digest=incoming.digest, size=incoming.size), incoming)

    def _record_stored(self, entry: Entry) -> None:
        """Record a response that is in the cache."""
        fetched = Fetched(self.request.method, self.url, 200, entry.headers, entry.digest, entry.size)
        self.cache.record(fetched, self.cache.store.body(entry.digest))

    async def _store(self, incoming: IncomingFile, known: policy.Response, lines: tuple[tuple[str, str], ...]) -> None:
        fetched = Fetched("GET", self.url, 200, lines, incoming.digest, incoming.size)
        if policy.promised_digest(self.url) not in (None, incoming.digest):
            self.cache.record(fetched, incoming)  # damaged; recorded all the same, since the client gets it too
            return
        entry = Entry(
            "GET", self.url, policy.selecting_fields(self.fields, known.fields), lines, incoming.digest, incoming.size,
            known.requested_at, known.received_at,
        )  # fmt: skip
        try:
            entry = await asyncio.to_thread(self.cache.store.add, incoming, entry)  # waits while another process cleans up
            self.served.digest = incoming.digest
            self._record_stored(entry)
        except HostError as error:
            self.cache.unwritable(error)
            place = self.cache.store.body(incoming.digest)
            self.cache.record(fetched, place if place.exists() else incoming)

    # --- from the cache ------------------------------------------------------------------------------------------

    async def _answer_from_cache(self, stored: StoredResponse, how: How) -> web.StreamResponse:
        entry = stored.entry
        known = entry.response
        self.served.how, self.served.digest = how, entry.digest
        self.cache.store.touch(entry)
        self._record_stored(entry)
        lines = [(name, value) for name, value in entry.headers if name.lower() not in ("age", "content-length")]
        lines.append(("Age", str(int(policy.age(known, time.time())))))
        if policy.not_modified(self.fields, known.fields):
            return await self._not_modified(lines)
        positions = policy.byte_range(self.fields, known.fields, entry.size) if self.request.method == "GET" else None
        if positions is None:
            return await self._send(200, lines, stored.body, range(entry.size))
        if not positions:
            return await self._send(416, [("Content-Range", f"bytes */{entry.size}")], stored.body, positions)
        lines.append(("Content-Range", f"bytes {positions.start}-{positions.stop - 1}/{entry.size}"))
        return await self._send(206, lines, stored.body, positions)

    async def _answer_from_recording(self, replay: Replay) -> web.StreamResponse:
        """Answer with the recorded response."""
        with replay.find(self.request.method, self.url) as stored:
            if stored is None:
                return self.problem(504, f"{self.served.url} is not in the recording{replay.why(self.request.method, self.url)}")
            fetched, body = stored
            self.served.how, self.served.digest = "hit", fetched.digest
            lines = [(name, value) for name, value in fetched.headers if name.lower() != "content-length"]
            recorded_length = policy.fields(fetched.headers).get("content-length", "") if fetched.method == "HEAD" else ""
            return await self._send(fetched.status, lines, body, range(int(recorded_length) if recorded_length.isdigit() else fetched.size))

    async def _send(self, status: int, lines: list[tuple[str, str]], body: BinaryIO, positions: range) -> web.StreamResponse:
        reply = await self._start(status, [*lines, ("Content-Length", str(len(positions)))])
        if self.request.method != "HEAD":
            body.seek(positions.start)
            while chunk := body.read(min(CHUNK, len(positions) - self.served.from_cache)):
                self.served.from_cache += len(chunk)
                await reply.write(chunk)
        await reply.write_eof()
        return reply

    async def _not_modified(self, lines: Iterable[tuple[str, str]]) -> web.StreamResponse:
        reply = await self._start(304, [(name, value) for name, value in lines if name.lower() in policy.NOT_MODIFIED_FIELDS])
        await reply.write_eof()
        return reply

    # --- the answer ----------------------------------------------------------------------------------------------

    async def _start(self, status: int, lines: Iterable[tuple[str, str]], reason: str | None = None) -> web.StreamResponse:
        """Send the status line and headers of the answer."""
        self.reply = web.StreamResponse(status=status, reason=reason)
        for name, value in (*lines, ("Via", VIA)):
            self.reply.headers.add(name, value)
        self.served.status = status
        await self.reply.prepare(self.request)
        return self.reply

    def problem(self, status: int, message: str) -> web.StreamResponse:
        """An error answer of the proxy itself. If an answer has begun, the connection is closed early, which the client notices."""
        self.served.how = "failed"
        if self.reply is not None:
            return self.broken()
        self.served.status = status
        return _problem(status, message)

    def broken(self) -> web.StreamResponse:
        """Close the connection to the client."""
        if self.request.transport is not None:
            self.request.transport.close()
        return self.reply or _problem(502, "the connection is closed")


def _problem(status: int, message: str) -> web.Response:
    return web.Response(status=status, text=f"bake: {message}\n")
