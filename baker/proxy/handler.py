"""One request of a guest and its answer: from the cache, from the server, or from the one because the other said so."""

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
from baker.proxy.store import Entry, Found, Incoming, Store
from baker.proxy.upstream import CHUNK, Upstream, UpstreamError, authorization, chunks

VIA = "1.1 bake"
PARTIAL = frozenset({"range", "if-range"}) | policy.CONDITIONS
How = Literal["hit", "revalidated", "miss", "passed", "failed"]


@dataclass
class Served:
    """What became of a request. `digest` is that of the body in the cache, where it is there."""

    method: str
    url: str  # without its query
    how: How = "failed"
    status: int = 0
    from_cache: int = 0  # bytes of the body
    fetched: int = 0
    digest: str = ""


class Cache:
    """Answers requests (in absolute form) out of `store`, and out of what `upstream` says where that is not enough."""

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
        """The handler of the web server. What goes wrong is the client's answer; nothing is logged that could hold a secret.

        `base`: scheme and authority of what the client takes this for, in a tunnel that ends here."""
        try:
            target = policy.target(base + request.raw_path if base else request.raw_path)
        except ValueError:
            return _problem(400, f"this is a proxy: it wants an absolute http URL, and not a {request.method} of this")
        exchange = Exchange(self, request, target)
        try:
            return await exchange.run()
        except UpstreamError as error:
            return exchange.problem(error.status, str(error))
        except ConnectionError:
            return exchange.broken()  # the client is gone
        finally:
            self.served(exchange.served)

    def record(self, fetched: Fetched, body: Incoming | Path | None) -> None:
        """Note a response, where this build's are noted."""
        if self.recording is not None:
            try:
                self.recording.add(fetched, body)
            except HostError as error:
                self.recording.give_up()
                self.recording = None
                self._warn(f"what this build fetches cannot be recorded any more: {error.message}")

    def unwritable(self, error: HostError) -> None:
        """The directory does not take what it should keep: no reason to fail a build, and told once."""
        if not self._warned:
            self._warn(f"the HTTP cache cannot be written: {error.message}")
        self._warned = True


class Exchange:
    """A request, and how it is answered."""

    def __init__(self, cache: Cache, request: web.BaseRequest, target: policy.Target) -> None:
        self.cache = cache
        self.request = request
        self.url = target.url
        self.lines = tuple(request.headers.items())
        if target.login and "Authorization" not in request.headers:
            self.lines += (authorization(target.login),)
        self.fields = policy.fields(self.lines)
        if cache.recording or cache.replay:  # whole answers only, so that each is one whoever asks
            self.lines = tuple((name, value) for name, value in self.lines if name.lower() not in PARTIAL)
            self.fields = policy.fields(self.lines)
        self.served = Served(request.method, target.shown)
        self.reply: web.StreamResponse | None = None

    async def run(self) -> web.StreamResponse:
        if self.cache.replay is not None:
            return await self._replayed(self.cache.replay)
        if not policy.cacheable(self.request.method, self.fields):
            return await self._fetch(None)
        with self.cache.store.find("GET", self.url, self.fields) as found:
            if found and (self.cache.offline or policy.usable(self.fields, found.entry.response, time.time())):
                return await self._from_cache(found, "hit")
            return await self._fetch(found)

    # --- from the server -----------------------------------------------------------------------------------------

    async def _fetch(self, found: Found | None) -> web.StreamResponse:
        """Ask the server. `found` is kept, but it is for the server to say whether it is still good."""
        if self.cache.offline or "only-if-cached" in policy.directives(self.fields):
            return self.problem(504, f"{self.served.url} is not in the cache")
        conditions = {} if found is None or "range" in self.fields else policy.validators(found.entry.response.fields)
        requested_at = time.time()
        body = self.request.content.iter_any() if policy.has_body(self.fields) else None
        try:
            async with self.cache.upstream.request(self.request.method, self.url, self._forwarded(conditions), body) as response:
                received_at = time.time()
                if found and conditions and response.status == 304:
                    return await self._from_cache(self._renewed(found, response, requested_at, received_at), "revalidated")
                if response.status < 500 or not self._stands_in(found):
                    return await self._relay(response, requested_at, received_at)
        except UpstreamError:
            if self.reply is not None or not self._stands_in(found):
                raise
        assert found is not None
        return await self._from_cache(found, "hit")

    def _stands_in(self, found: Found | None) -> bool:
        """Whether what is kept serves while the server does not: who asked wanted it checked, but it is fresh."""
        return found is not None and policy.fresh(found.entry.response, time.time())

    def _forwarded(self, conditions: dict[str, str]) -> list[tuple[str, str]]:
        ours = {"host", "via", "expect"} | (policy.CONDITIONS if conditions else set())
        lines = [(name, value) for name, value in policy.end_to_end(self.lines) if name.lower() not in ours]
        return [*lines, *conditions.items(), ("Via", ", ".join(filter(None, (self.fields.get("via"), VIA))))]

    def _renewed(self, found: Found, response: aiohttp.ClientResponse, requested_at: float, received_at: float) -> Found:
        lines = policy.renewed_lines(found.entry.headers, response.headers.items())
        try:
            return Found(self.cache.store.renew(found.entry, lines, requested_at, received_at), found.body)
        except HostError as error:
            self.cache.unwritable(error)
            return found

    async def _relay(self, response: aiohttp.ClientResponse, requested_at: float, received_at: float) -> web.StreamResponse:
        """Pass the server's answer on, and keep it on the way if that may be."""
        lines = policy.end_to_end(response.headers.items())
        known = policy.Response(self.url, policy.fields(response.headers.items()), requested_at, received_at)
        caching = policy.cacheable(self.request.method, self.fields)
        self.served.how = "miss" if caching else "passed"
        if caching and response.status == 200 and policy.not_modified(self.fields, known.fields):
            return await self._not_modified(lines)  # the server was asked about what is kept, the client has what is new
        if self.request.method in policy.UNSAFE and response.status < 400:
            self.cache.store.forget("GET", self.url)
        reply = await self._start(response.status, lines, response.reason)
        if policy.storable(self.request.method, self.fields, response.status, known):
            await self._tee(response, reply, known)
        elif self.cache.recording is not None:
            await self._record(self.cache.recording, response, reply)
        else:
            async for chunk in chunks(response):
                self.served.fetched += len(chunk)
                await reply.write(chunk)
        await reply.write_eof()
        return reply

    async def _tee(self, response: aiohttp.ClientResponse, reply: web.StreamResponse, known: policy.Response) -> None:
        """Pass a body on and keep it. The client gets the last of it when the cache has all: so the next who asks finds it."""
        last = b""
        with self.cache.store.incoming() as incoming:
            async for chunk in chunks(response):
                self.served.fetched += len(chunk)
                incoming.write(chunk)
                if last:
                    await reply.write(last)
                last = chunk
            await self._keep(incoming, known, policy.kept_lines(response.headers.items()))
        await reply.write(last)

    async def _record(self, recording: Recording, response: aiohttp.ClientResponse, reply: web.StreamResponse) -> None:
        """Pass a body on that the cache does not keep, but the record of the build does, unless it was for this client alone."""
        private = "asked for with credentials" if policy.CREDENTIALS & self.fields.keys() else ""
        private = private or ("asked for with a body" if policy.has_body(self.fields) else "")
        with recording.incoming() as incoming:
            async for chunk in chunks(response):
                self.served.fetched += len(chunk)
                incoming.write(b"" if private else chunk)
                await reply.write(chunk)
            lines = () if private else policy.kept_lines(response.headers.items())
            fetched = Fetched(self.request.method, self.url, response.status, lines, why=private)
            if private:
                self.cache.record(fetched, None)
            else:
                self.cache.record(replace(fetched, digest=incoming.digest, size=incoming.size), incoming)

    def _note(self, entry: Entry) -> None:
        """Record a response that the cache has."""
        fetched = Fetched(self.request.method, self.url, 200, entry.headers, entry.digest, entry.size)
        self.cache.record(fetched, self.cache.store.body(entry.digest))

    async def _keep(self, incoming: Incoming, known: policy.Response, lines: tuple[tuple[str, str], ...]) -> None:
        fetched = Fetched("GET", self.url, 200, lines, incoming.digest, incoming.size)
        if policy.promised_digest(self.url) not in (None, incoming.digest):
            self.cache.record(fetched, incoming)  # damaged on the way, or a liar: the client will notice as well, and again in a rebuild
            return
        entry = Entry(
            "GET", self.url, policy.varying(self.fields, known.fields), lines, incoming.digest, incoming.size,
            known.requested_at, known.received_at,
        )  # fmt: skip
        try:
            kept = await asyncio.to_thread(self.cache.store.keep, incoming, entry)  # waits while another process cleans up
            self.served.digest = incoming.digest
            self._note(kept)
        except HostError as error:
            self.cache.unwritable(error)
            place = self.cache.store.body(incoming.digest)
            self.cache.record(fetched, place if place.exists() else incoming)

    # --- from the cache ------------------------------------------------------------------------------------------

    async def _from_cache(self, found: Found, how: How) -> web.StreamResponse:
        entry = found.entry
        known = entry.response
        self.served.how, self.served.digest = how, entry.digest
        self.cache.store.touch(entry)
        self._note(entry)
        lines = [(name, value) for name, value in entry.headers if name.lower() not in ("age", "content-length")]
        lines.append(("Age", str(int(policy.age(known, time.time())))))
        if policy.not_modified(self.fields, known.fields):
            return await self._not_modified(lines)
        wanted = policy.byte_range(self.fields, known.fields, entry.size) if self.request.method == "GET" else None
        if wanted is None:
            return await self._send(200, lines, found.body, range(entry.size))
        if not wanted:
            return await self._send(416, [("Content-Range", f"bytes */{entry.size}")], found.body, wanted)
        lines.append(("Content-Range", f"bytes {wanted.start}-{wanted.stop - 1}/{entry.size}"))
        return await self._send(206, lines, found.body, wanted)

    async def _replayed(self, replay: Replay) -> web.StreamResponse:
        """What was answered when this was recorded."""
        with replay.find(self.request.method, self.url) as found:
            if found is None:
                return self.problem(504, f"{self.served.url} is not on record{replay.why(self.request.method, self.url)}")
            fetched, body = found
            self.served.how, self.served.digest = "hit", fetched.digest
            lines = [(name, value) for name, value in fetched.headers if name.lower() != "content-length"]
            told = policy.fields(fetched.headers).get("content-length", "") if fetched.method == "HEAD" else ""
            return await self._send(fetched.status, lines, body, range(int(told) if told.isdigit() else fetched.size))

    async def _send(self, status: int, lines: list[tuple[str, str]], body: BinaryIO, wanted: range) -> web.StreamResponse:
        reply = await self._start(status, [*lines, ("Content-Length", str(len(wanted)))])
        if self.request.method != "HEAD":
            body.seek(wanted.start)
            while chunk := body.read(min(CHUNK, len(wanted) - self.served.from_cache)):
                self.served.from_cache += len(chunk)
                await reply.write(chunk)
        await reply.write_eof()
        return reply

    async def _not_modified(self, lines: Iterable[tuple[str, str]]) -> web.StreamResponse:
        reply = await self._start(304, [(name, value) for name, value in lines if name.lower() in policy.OF_NOT_MODIFIED])
        await reply.write_eof()
        return reply

    # --- the answer ----------------------------------------------------------------------------------------------

    async def _start(self, status: int, lines: Iterable[tuple[str, str]], reason: str | None = None) -> web.StreamResponse:
        """Send the head of the answer."""
        self.reply = web.StreamResponse(status=status, reason=reason)
        for name, value in (*lines, ("Via", VIA)):
            self.reply.headers.add(name, value)
        self.served.status = status
        await self.reply.prepare(self.request)
        return self.reply

    def problem(self, status: int, message: str) -> web.StreamResponse:
        """An answer that the proxy gives by itself; when one has begun already, its end is missing, which the client will notice."""
        self.served.how = "failed"
        if self.reply is not None:
            return self.broken()
        self.served.status = status
        return _problem(status, message)

    def broken(self) -> web.StreamResponse:
        if self.request.transport is not None:
            self.request.transport.close()
        return self.reply or _problem(502, "the connection is gone")


def _problem(status: int, message: str) -> web.Response:
    return web.Response(status=status, text=f"bake: {message}\n")
