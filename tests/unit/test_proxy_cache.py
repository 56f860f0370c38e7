"""The caching proxy, as a process, between a client and a server on loopback."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from baker.core import process
from baker.core.errors import HostError
from baker.core.events import Memory, Message, Reporter
from baker.proxy.proxy import Proxy, Statistics, http_cache
from baker.proxy.store import Store
from baker.upkeep.sweep import end_processes, processes_of
from tests.support.until import until
from tests.support.web import Site, serving

LOOPBACK = ["127.0.0.1"]
DEB = "/debian/pool/main/h/hello/hello_1_all.deb"
BODY = b"an index"
PATIENCE = 20.0


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str] = field(repr=False)


@dataclass
class Running:
    """A proxy, with what it reports and keeps."""

    proxy: Proxy
    store: Store
    events: Memory

    def ask(self, url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.port, timeout=PATIENCE)
        try:
            connection.putrequest(method, url, skip_host=True, skip_accept_encoding=True)
            for name, value in {"Host": "ignored", **headers, **({"Content-Length": str(len(body))} if body is not None else {})}.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders(body)
            response = connection.getresponse()
            return Answer(response.status, response.read(), {name.lower(): value for name, value in response.getheaders()})
        finally:
            connection.close()

    def since(self, before: Statistics) -> dict[str, int]:
        """What has been counted since `before`, without what has not."""
        names = Statistics.__dataclass_fields__
        return {n: d for n in names if (d := getattr(self.proxy.statistics, n) - getattr(before, n))}

    def said(self) -> str:
        return "\n".join(event.text for event in self.events.events if isinstance(event, Message))


@contextmanager
def running(directory: Path, *, allow: list[str] | None = None, offline: bool = False) -> Iterator[Running]:
    events = Memory()
    with http_cache(directory, report=Reporter(events), allow=LOOPBACK if allow is None else allow, offline=offline) as proxy:
        yield Running(proxy, Store(directory), events)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("http")) as running_:
        yield running_


@pytest.fixture
def cache(shared: Running) -> Running:
    """A proxy without entries; the tests of a process share one, for the time that it takes to start."""
    shared.store.remove(*shared.store.entries())
    shared.events.events.clear()
    return shared


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site({"/index": BODY, DEB: b"a package", "/big": b"x" * 3_000_000})) as site:
        yield site


def whole(store: Store) -> None:
    """Every entry has its body, and nothing is under way."""
    for entry in store.entries():
        with store.find("GET", entry.url, entry.vary) as found:
            assert found is not None
            assert "sha256:" + hashlib.sha256(found.body.read()).hexdigest() == entry.digest
    assert not list(store.root.glob("tmp/*"))


# --- hits and misses -----------------------------------------------------------------------------------------------------


def test_what_its_path_names_is_fetched_once(cache: Running, site: Site) -> None:
    first = cache.ask(site.url + DEB)
    again = cache.ask(site.url + DEB, Cache_Control="max-age=0")
    assert (first.status, first.body) == (again.status, again.body) == (200, b"a package")
    assert len(site.requests) == 1
    assert again.headers["content-length"] == "9"
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["age"].isdigit()
    assert again.headers["via"] == site.requests[0]["via"] == "1.1 bake"
    entry = cache.store.entries()[0]
    assert (entry.url, entry.size) == (site.url + DEB, 9)


def test_what_is_fresh_is_a_hit_and_what_is_not_is_asked_for_again(cache: Running, site: Site) -> None:
    site.headers = {"Cache-Control": "max-age=60"}
    assert [cache.ask(site.url + "/index").body for _ in range(3)] == [BODY] * 3
    assert len(site.requests) == 1
    cache.ask(site.url + "/index", Cache_Control="no-cache")
    assert len(site.requests) == 2
    assert site.requests[1]["if-none-match"] == '"one"'


def test_a_304_serves_what_is_kept_and_makes_it_fresh_again(cache: Running, site: Site) -> None:
    cache.ask(site.url + "/index")
    site.headers = {"Cache-Control": "max-age=60"}
    again = cache.ask(site.url + "/index")
    assert (again.status, again.body) == (200, BODY)
    assert again.headers["cache-control"] == "max-age=60"
    assert cache.ask(site.url + "/index").body == BODY
    assert [request.get("if-none-match") for request in site.requests] == [None, '"one"']


def test_what_has_changed_is_fetched_anew(cache: Running, site: Site) -> None:
    cache.ask(site.url + "/index")
    site.files["/index"], site.etag = b"a newer index", '"two"'
    assert cache.ask(site.url + "/index").body == b"a newer index"
    assert [entry.size for entry in cache.store.entries()] == [len(b"a newer index")]


def test_a_client_that_has_the_current_one_is_told_so(cache: Running, site: Site) -> None:
    assert cache.ask(site.url + "/index", If_None_Match='"one"').status == 304, "nothing is kept: the server's word"
    assert cache.store.entries() == []
    cache.ask(site.url + DEB)
    for _ in range(2):
        answer = cache.ask(site.url + DEB, If_None_Match='"one"')
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", '"one"')
    assert cache.ask(site.url + DEB, If_None_Match='"other"').body == b"a package"
    assert len([request for request in site.requests if request["path"] == DEB]) == 1


def test_a_client_that_is_ahead_of_the_cache_is_not_sent_what_it_has(cache: Running, site: Site) -> None:
    cache.ask(site.url + "/index")
    site.files["/index"], site.etag = b"a newer index", '"two"'
    assert cache.ask(site.url + "/index", If_None_Match='"two"').status == 304
    assert cache.ask(site.url + "/index", If_None_Match='"one"').body == b"a newer index"


def test_a_client_that_asks_for_a_stale_one_it_has(cache: Running, site: Site) -> None:
    cache.ask(site.url + "/index")
    assert cache.ask(site.url + "/index", If_None_Match='"one"').status == 304
    assert cache.ask(site.url + "/index", If_None_Match='"zero"').body == BODY


def test_variants_are_not_mixed_up(cache: Running, site: Site) -> None:
    site.headers = {"Vary": "Accept-Encoding", "Cache-Control": "max-age=60"}
    cache.ask(site.url + "/index")
    cache.ask(site.url + "/index", Accept_Encoding="gzip")
    cache.ask(site.url + "/index", Accept_Encoding="gzip")
    assert [request.get("accept-encoding") for request in site.requests] == [None, "gzip"]


def test_a_body_of_unsaid_length_is_kept(cache: Running, site: Site) -> None:
    site.chunked = True
    assert cache.ask(site.url + DEB).body == cache.ask(site.url + DEB).body == b"a package"
    assert len(site.requests) == 1


def test_an_encoded_body_passes_as_it_is(cache: Running, site: Site) -> None:
    site.headers = {"Content-Encoding": "gzip"}  # and it is not even true
    for _ in range(2):
        answer = cache.ask(site.url + DEB)
        assert (answer.body, answer.headers["content-encoding"]) == (b"a package", "gzip")
    assert len(site.requests) == 1


def test_the_url_reaches_the_server_as_it_was_written(cache: Running, site: Site) -> None:
    path = "/pool/lib%2b%2B+x/a~b_1%3a2.deb?x=%7e&y=a+b"
    site.files[path] = b"x"
    assert cache.ask(site.url + path).body == b"x"
    assert site.requests[0]["path"] == path
    assert site.requests[0]["host"] == site.url.removeprefix("http://")
    assert not {"accept", "accept-encoding", "user-agent"} & site.requests[0].keys()


def test_an_index_by_hash_with_another_content_is_passed_on_but_not_kept(cache: Running, site: Site) -> None:
    good, bad = (f"/dists/x/by-hash/SHA256/{hashlib.sha256(text).hexdigest()}" for text in (BODY, b"other"))
    site.files |= {good: BODY, bad: BODY}
    for path in (good, good, bad, bad):
        assert cache.ask(site.url + path).body == BODY
    assert [request["path"] for request in site.requests] == [good, bad, bad]


# --- what is not for the cache --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{"Authorization": "Basic c2VjcmV0"}, {"Cookie": "s=secret"}, {"Cache_Control": "no-store"}])
def test_what_is_asked_with_credentials_passes_by(cache: Running, site: Site, headers: dict[str, str]) -> None:
    for _ in range(2):
        assert cache.ask(site.url + DEB, **headers).body == b"a package"
    assert len(site.requests) == 2
    assert cache.store.entries() == []


def test_a_response_that_is_private_is_not_kept(cache: Running, site: Site) -> None:
    site.headers = {"Set-Cookie": "s=secret"}
    assert cache.ask(site.url + DEB).headers["set-cookie"] == "s=secret"
    site.headers = {"Cache-Control": "no-store"}
    cache.ask(site.url + DEB)
    assert cache.store.entries() == []


def test_the_login_of_a_url_reaches_the_server_and_nothing_else(cache: Running, site: Site) -> None:
    answer = cache.ask(site.url.replace("http://", "http://me:s3cret@") + "/index?token=t0ken", Proxy_Authorization="Basic cHJveHk=")
    assert answer.status == 404
    until(lambda: "GET" in cache.said(), PATIENCE, "the request is logged")
    assert site.requests[0]["authorization"] == "Basic bWU6czNjcmV0"
    assert "proxy-authorization" not in site.requests[0]
    assert f"GET {site.url}/index: 404" in cache.said()
    assert "s3cret" not in cache.said()
    assert "t0ken" not in cache.said()
    assert cache.store.entries() == []


def test_a_post_passes_with_its_body_and_drops_what_it_changes(cache: Running, site: Site) -> None:
    site.headers = {"Cache-Control": "max-age=60"}
    cache.ask(site.url + "/index")
    answer = cache.ask(site.url + "/index", "POST", b"p" * 300_000)
    assert (answer.status, answer.body) == (200, b"p" * 300_000)
    assert site.requests[-1]["content-length"] == "300000"
    assert cache.store.entries() == []


def test_head_is_answered_from_a_kept_get_but_not_kept(cache: Running, site: Site) -> None:
    assert cache.ask(site.url + DEB, "HEAD").headers["content-length"] == "9"
    assert cache.store.entries() == []
    cache.ask(site.url + DEB)
    answer = cache.ask(site.url + DEB, "HEAD", Range="bytes=2-")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "9")
    assert len(site.requests) == 2


def test_a_part_is_never_kept_but_is_served_from_a_whole_one(cache: Running, site: Site) -> None:
    answer = cache.ask(site.url + DEB, Range="bytes=2-")
    assert (answer.status, answer.body, answer.headers["content-range"]) == (206, b"package", "bytes 2-8/9")
    assert cache.store.entries() == []
    cache.ask(site.url + DEB)
    answer = cache.ask(site.url + DEB, Range="bytes=2-4", If_Range='"one"')
    assert (answer.status, answer.body, answer.headers["content-range"]) == (206, b"pac", "bytes 2-4/9")
    assert cache.ask(site.url + DEB, Range="bytes=2-4", If_Range='"zero"').body == b"a package"
    answer = cache.ask(site.url + DEB, Range="bytes=9-")
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */9")
    assert len(site.requests) == 2


def test_a_part_of_a_stale_one_is_the_servers(cache: Running, site: Site) -> None:
    cache.ask(site.url + "/index")
    assert cache.ask(site.url + "/index", Range="bytes=3-").body == b"index"
    assert site.requests[1]["range"] == "bytes=3-"
    assert "if-none-match" not in site.requests[1]


def test_errors_pass_and_are_not_kept(cache: Running, site: Site) -> None:
    site.statuses = [404, 503, 301]
    assert [cache.ask(site.url + DEB).status for _ in range(4)] == [404, 503, 301, 200]


@pytest.mark.parametrize("target", ["/index", "ftp://deb.example/x", "*", "http://a\\@127.0.0.1/", "http://127.1/"])
def test_what_is_no_request_to_a_proxy(cache: Running, target: str) -> None:
    answer = cache.ask(target, "OPTIONS" if target == "*" else "GET")
    assert answer.status == 400


# --- when things go wrong -------------------------------------------------------------------------------------------------


def test_a_server_that_is_gone_is_stood_in_for_only_by_what_is_fresh(cache: Running) -> None:
    with serving(Site({DEB: b"a package", "/index": BODY})) as site:
        cache.ask(site.url + DEB)
        cache.ask(site.url + "/index")
        site.statuses = [503, 503]
        assert cache.ask(site.url + DEB, Cache_Control="no-cache").body == b"a package"
        assert cache.ask(site.url + "/index").status == 503
    assert cache.ask(site.url + DEB, Cache_Control="no-cache").body == b"a package"
    answer = cache.ask(site.url + "/index?token=t0ken")
    assert (answer.status, answer.body) == (502, b"bake: cannot reach 127.0.0.1: Connection refused\n")
    assert cache.ask(site.url + "/index").status == 502
    assert len(cache.store.entries()) == 2


def test_a_name_that_does_not_resolve(cache: Running) -> None:
    answer = cache.ask("http://nowhere.invalid/x")
    assert answer.status in (502, 504)
    assert b"nowhere.invalid" in answer.body


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_breaks_off_is_not_kept_and_breaks_off_for_the_client(cache: Running, site: Site, chunked: bool) -> None:
    site.drop_after, site.chunked = [1_000_000], chunked
    with pytest.raises(http.client.IncompleteRead):
        cache.ask(site.url + "/big")
    assert cache.store.entries() == []
    whole(cache.store)
    assert len(cache.ask(site.url + "/big").body) == 3_000_000
    assert len(cache.store.entries()) == 1


def test_a_client_that_goes_away_leaves_no_torn_entry(cache: Running, site: Site) -> None:
    site.pause_after = 2_000_000
    with socket.create_connection(("127.0.0.1", cache.proxy.port), timeout=PATIENCE) as client:
        client.sendall(f"GET {site.url}/big HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        client.recv(100_000)
        until(lambda: list(cache.store.root.glob("tmp/*")), PATIENCE, "the download has begun")
    site.go_on.set()
    until(lambda: not list(cache.store.root.glob("tmp/*")), PATIENCE, "the download has ended")
    assert len(cache.ask(site.url + "/big").body) == 3_000_000
    whole(cache.store)


def test_a_cache_that_cannot_be_written_is_a_proxy_all_the_same(tmp_path: Path, site: Site) -> None:
    (tmp_path / "file").touch()
    with running(tmp_path / "file" / "http") as cache:
        for _ in range(2):
            assert cache.ask(site.url + DEB).body == b"a package"
    assert cache.said().count("the HTTP cache cannot be written") == 1


def test_who_asks_while_another_fetches_fetches_as_well(cache: Running, site: Site) -> None:
    site.pause_after = 1_000_000
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(cache.ask, site.url + "/big") for _ in range(4)]
        until(lambda: len(site.requests) == 4, PATIENCE, "four requests have come")
        site.go_on.set()
        assert {len(answer.result().body) for answer in answers} == {3_000_000}
    assert len(cache.store.entries()) == 1
    whole(cache.store)


def test_requests_in_one_go_are_answered_in_their_order(cache: Running, site: Site) -> None:
    """apt sends ten requests before it reads the first answer."""
    names = [f"/pool/{number}.deb" for number in range(10)]
    site.files |= {name: name.encode() for name in names}
    cache.ask(site.url + names[3])
    with socket.create_connection(("127.0.0.1", cache.proxy.port), timeout=PATIENCE) as client:
        client.sendall(b"".join(f"GET {site.url}{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for name in names))
        read = b""
        while b"/pool/9.deb" not in read and (chunk := client.recv(100_000)):
            read += chunk
    assert re.findall(rb"^(/pool/\d\.deb)", read, re.MULTILINE) == [name.encode() for name in names]


def test_a_large_body_does_not_sit_in_memory(tmp_path: Path) -> None:
    size = 100_000_000
    with serving(Site({DEB: bytes(size)})) as site, running(tmp_path) as cache:
        cache.proxy.port  # noqa: B018 - it has started
        pid = child_of(os.getpid(), tmp_path)
        before = peak(pid)
        for _ in range(2):
            assert length(cache, site.url + DEB) == size
        assert len(site.requests) == 1
        assert peak(pid) - before < 40_000_000
        whole(cache.store)


def length(cache: Running, url: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", cache.proxy.port, timeout=PATIENCE)
    connection.request("GET", url)
    response, size = connection.getresponse(), 0
    while chunk := response.read(1 << 20):
        size += len(chunk)
    connection.close()
    return size


def peak(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


# --- where it does not go -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.8.9.1", "localhost", "LOCALHOST", "0x7f.1", "0x7f000001", "0.0.0.0", "[::1]", "[::]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "169.254.169.254", "[fe80::1]", "[fd00:ec2::254]",
        "100.100.100.200", "168.63.129.16", "224.0.0.1",
    ],
)  # fmt: skip
def test_what_is_the_hosts_own_is_refused(closed: Running, site: Site, host: str) -> None:
    answer = closed.ask(f"http://{host}:{site.url.rpartition(':')[2]}/index")
    assert answer.status == 403, answer
    assert b"loopback" in answer.body
    assert tunnel(closed, f"{host}:{site.url.rpartition(':')[2]}")[0] == 403
    assert site.requests == []


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("closed"), allow=[]) as running_:
        yield running_


def test_it_listens_on_loopback_alone(cache: Running) -> None:
    lines = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if line.split()[3] == "0A"]
    assert f"0100007F:{cache.proxy.port:04X}" in lines
    assert f":{cache.proxy.port:04X} 0" not in Path("/proc/net/tcp6").read_text()


# --- tunnels --------------------------------------------------------------------------------------------------------------


def tunnel(cache: Running, authority: str, data: bytes = b"") -> tuple[int, bytes]:
    """CONNECT to `authority`, send `data`, and read to the end: the status, and what came after the head."""
    with socket.create_connection(("127.0.0.1", cache.proxy.port), timeout=PATIENCE) as client:
        client.sendall(b"CONN")
        time.sleep(0.01)
        client.sendall(f"ECT {authority} HTTP/1.1\r\nHost: {authority}\r\nProxy-Authorization: Basic cHJveHk=\r\n\r\n".encode())
        read = b""
        while b"\r\n\r\n" not in read and (chunk := client.recv(65536)):
            read += chunk
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        while chunk := client.recv(65536):
            read += chunk
    head, _, rest = read.partition(b"\r\n\r\n")
    return int(head.split()[1]), rest


def test_a_tunnel_carries_what_is_between_the_two(cache: Running, site: Site) -> None:
    before = cache.proxy.statistics
    status, rest = tunnel(cache, site.url.removeprefix("http://"), b"GET /big HTTP/1.0\r\nCookie: s=secret\r\n\r\n")
    assert status == 200
    assert rest.endswith(b"x" * 3_000_000)
    assert site.requests[0]["cookie"] == "s=secret"
    assert cache.store.entries() == []
    until(lambda: cache.since(before).get("passed") == 1, PATIENCE, "one tunnel is counted")
    assert cache.since(before)["bytes_fetched"] == len(rest)


@pytest.mark.parametrize("authority", ["/x", "deb.example:x", "b:443/x", "a@b:443", "b:443?x", "127.1:443"])
def test_a_tunnel_to_nowhere(cache: Running, authority: str) -> None:
    assert tunnel(cache, authority)[0] == 400


def test_a_tunnel_to_a_server_that_is_gone(cache: Running) -> None:
    with serving(Site({})) as site:
        gone = site.url.removeprefix("http://")
    assert tunnel(cache, gone) == (502, b"bake: cannot reach 127.0.0.1: Connection refused\n")


# --- behind the host's own proxy ------------------------------------------------------------------------------------------


def test_the_hosts_own_proxy_is_asked_except_for_what_it_is_not_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Site({f"http://deb.example{DEB}": b"from afar", DEB: b"from nearby"})) as site:
        monkeypatch.setenv("http_proxy", site.url.replace("http://", "http://me:s3cret@"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with running(tmp_path, allow=[]) as cache:
            assert cache.ask(f"http://deb.example{DEB}").body == b"from afar"
            assert cache.ask("http://localhost/x").status == 403, "no name of the host's own, through the proxy either"
            assert cache.ask(site.url + DEB).status == 403
        assert site.requests[0]["proxy-authorization"] == "Basic bWU6czNjcmV0"
        with running(tmp_path) as cache:
            assert cache.ask(site.url + DEB).body == b"from nearby"
        assert [request["path"] for request in site.requests] == [f"http://deb.example{DEB}", DEB]
        assert "s3cret" not in cache.said()


def test_a_tunnel_goes_through_the_hosts_own_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Site) -> None:
    with running(tmp_path / "outer") as outer:
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{outer.proxy.port}")
        with running(tmp_path / "inner") as inner:
            status, rest = tunnel(inner, site.url.removeprefix("http://"), b"GET /index HTTP/1.0\r\n\r\n")
            assert (status, rest.endswith(BODY)) == (200, True)
            until(lambda: outer.proxy.statistics.passed == 1, PATIENCE, "one tunnel is counted")
            with serving(Site({})) as gone:
                pass
            assert tunnel(inner, gone.url.removeprefix("http://"))[0] == 502


# --- offline --------------------------------------------------------------------------------------------------------------


def test_offline_serves_what_is_kept_however_old_and_nothing_else(tmp_path: Path, site: Site) -> None:
    with running(tmp_path) as cache:
        cache.ask(site.url + "/index")
        cache.ask(site.url + DEB)
    with running(tmp_path, offline=True) as cache:
        assert cache.ask(site.url + "/index", Cache_Control="no-cache").body == BODY
        assert cache.ask(site.url + DEB, Range="bytes=2-").body == b"package"
        assert cache.ask(site.url + "/index", If_None_Match='"one"').status == 304
        assert cache.ask(site.url + "/big").status == 504
        assert cache.ask(site.url + "/index", "POST", b"x").status == 504
        assert cache.ask(site.url + DEB, Authorization="x").status == 504
        assert tunnel(cache, site.url.removeprefix("http://"))[0] == 504
    assert len(site.requests) == 2


def test_only_if_cached(cache: Running, site: Site) -> None:
    assert cache.ask(site.url + DEB, Cache_Control="only-if-cached").status == 504
    cache.ask(site.url + DEB)
    assert cache.ask(site.url + DEB, Cache_Control="only-if-cached").body == b"a package"


# --- processes ------------------------------------------------------------------------------------------------------------


def child_of(pid: int, directory: Path) -> int:
    """The proxy that `pid` runs for `directory`."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line = (path / "cmdline").read_bytes().split(b"\0")
            if b"baker.proxy.server" in line and str(directory).encode() in line and f"PPid:\t{pid}\n" in (path / "status").read_text():
                return int(path.name)
        except OSError:
            continue
    raise AssertionError("it does not run")


def runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_two_proxies_share_a_directory(tmp_path: Path) -> None:
    files = {f"/pool/{number}.deb": bytes([number]) * 200_000 for number in range(20)}
    with serving(Site(files)) as site, running(tmp_path) as one, running(tmp_path) as other, ThreadPoolExecutor(4) as pool:
        asked = [(name, pool.submit(cache.ask, site.url + name)) for name in files for cache in (one, other)]
        for name, answer in asked:
            assert answer.result().body == files[name]
        assert len(one.store.entries()) == 20
        whole(one.store)
        before = len(site.requests)
        for cache in (one, other):
            assert {cache.ask(site.url + name).body for name in files} == set(files.values())
        assert len(site.requests) == before


def test_statistics(tmp_path: Path, site: Site) -> None:
    with running(tmp_path) as cache:
        cache.ask(site.url + DEB)
        cache.ask(site.url + DEB)
        cache.ask(site.url + "/index")
        cache.ask(site.url + "/index")
        cache.ask(site.url + "/index", Authorization="x")
        cache.ask("http://127.0.0.1:1/")
    assert cache.proxy.statistics == Statistics(
        requests=6, hits=1, revalidated=1, misses=2, passed=1, failed=1,
        bytes_from_cache=9 + len(BODY), bytes_fetched=9 + 2 * len(BODY),
    )  # fmt: skip
    assert cache.said().splitlines()[-1] == "HTTP cache: 6 requests: 2 from the cache (17 bytes), 3 fetched (25 bytes), 1 failed"


def test_an_unused_proxy_says_and_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as cache:
        pass
    assert cache.events.events == []
    assert not list(tmp_path.iterdir())


def test_a_proxy_that_cannot_start_says_so_to_who_asks_for_its_port(tmp_path: Path) -> None:
    with running(tmp_path, allow=["no address"]) as cache:
        with pytest.raises(HostError, match="no address") as caught:
            cache.proxy.port  # noqa: B018
        assert caught.value.code == "proxy.start-failed"


def test_a_proxy_that_dies_is_told_of(tmp_path: Path) -> None:
    with running(tmp_path) as cache:
        cache.proxy.port  # noqa: B018
        os.kill(child_of(os.getpid(), tmp_path), signal.SIGKILL)
        until(cache.said, PATIENCE, "the proxy says something")
        assert "ended unexpectedly" in cache.said()


def test_a_proxy_that_is_killed_in_the_middle_leaves_a_whole_cache(tmp_path: Path, site: Site) -> None:
    with running(tmp_path) as cache:
        cache.ask(site.url + DEB)
        site.pause_after = 2_000_000
        with socket.create_connection(("127.0.0.1", cache.proxy.port), timeout=PATIENCE) as client:
            client.sendall(f"GET {site.url}/big HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            until(lambda: list(tmp_path.glob("tmp/*")), PATIENCE, "the download has begun")
            os.kill(child_of(os.getpid(), tmp_path), signal.SIGKILL)
            until(cache.said, PATIENCE, "the proxy says something")
    site.pause_after = None
    site.go_on.set()
    assert len(list(tmp_path.glob("tmp/*"))) == 1
    with running(tmp_path) as cache:
        assert cache.ask(site.url + DEB).body == b"a package"
        until(lambda: not list(tmp_path.glob("tmp/*")), PATIENCE, "the download has ended")
        assert len(cache.ask(site.url + "/big").body) == 3_000_000
        whole(cache.store)


PARENT = """
import sys, time
from pathlib import Path
from baker.core.events import Null, Reporter
from baker.proxy.proxy import http_cache
with http_cache(Path(sys.argv[1]), report=Reporter(Null())) as proxy:
    print(proxy.port, flush=True)
    time.sleep(60)
"""


@contextmanager
def parent(directory: Path, build: str = "") -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process that runs a proxy, and the proxy's id."""
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, process.BUILD_ID_VARIABLE: build, "PYTHONPATH": str(root)}
    with subprocess.Popen([sys.executable, "-c", PARENT, str(directory)], env=env, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout and int(child.stdout.readline())
            yield child, child_of(child.pid, directory)
        finally:
            child.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_proxy_ends_when_its_parent_dies(tmp_path: Path, number: signal.Signals) -> None:
    with parent(tmp_path) as (child, pid):
        child.send_signal(number)
        child.wait(PATIENCE)
        until(lambda: not runs(pid), PATIENCE, "the proxy has ended")


def test_a_proxy_is_found_by_the_build_it_belongs_to(tmp_path: Path) -> None:
    build = secrets.token_hex(6)
    with parent(tmp_path, build) as (child, pid):
        assert set(processes_of(build)) == {child.pid, pid}
        assert pid in end_processes(build)
        until(lambda: not runs(pid), PATIENCE, "the proxy has ended")


def test_a_build_that_ends_during_a_download_does_not_wait_for_it(tmp_path: Path, site: Site) -> None:
    site.pause_after = 10
    with running(tmp_path) as cache:
        with socket.create_connection(("127.0.0.1", cache.proxy.port), timeout=PATIENCE) as client:
            client.sendall(f"GET {site.url}/big HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            until(lambda: list(tmp_path.glob("tmp/*")), PATIENCE, "the download has begun")
            cache.proxy.close()
            while client.recv(1 << 20):
                pass
    assert not list(tmp_path.glob("tmp/*"))


def test_what_is_told_on_stdout_is_one_line_each(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "baker.proxy.server", str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).resolve().parents[2]) as child:
        assert child.stdin and child.stdout
        assert list(json.loads(child.stdout.readline())) == ["port", "ca"]
        child.stdin.close()
        assert child.wait(PATIENCE) == 0
