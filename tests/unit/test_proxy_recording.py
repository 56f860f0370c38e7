"""Recording and replay of downloads, with a real proxy between a client and a server on loopback."""

from __future__ import annotations

import http.client
import re
import shutil
import socket
import ssl
from pathlib import Path

import pytest

from baker.core.events import Memory, Message, Reporter
from baker.core.model import Fetched
from baker.proxy.certificate_authority import Authority
from baker.proxy.proxy import Proxy, http_cache
from baker.proxy.recording import Recording, incomplete, join, mark_incomplete, read
from tests.support.web import Site, serving

PATIENCE = 20.0


def ask(proxy: Proxy, url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=PATIENCE)
    try:
        connection.request(method, url, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def head(proxy: Proxy, url: str) -> tuple[int, str | None]:
    """Status and Content-Length of the answer to HEAD."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=PATIENCE)
    try:
        connection.request("HEAD", url)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Length")
    finally:
        connection.close()


def ask_over_tls(proxy: Proxy, site: str, path: str) -> tuple[int, bytes]:
    """GET through a tunnel, as a guest that trusts the build's authority."""
    context = ssl.create_default_context(cadata=proxy.authority)
    connection = http.client.HTTPSConnection("127.0.0.1", proxy.port, timeout=PATIENCE, context=context)
    try:
        connection.set_tunnel(site.removeprefix("https://"))
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def record(tmp_path: Path, site: Site, *asked: dict[str, str]) -> list[Fetched]:
    """What is on record after these requests."""
    with http_cache(tmp_path / "cache", report=Reporter(Memory()), allow=["127.0.0.1"], record=tmp_path / "record") as proxy:
        for each in asked:
            rest = {name: value for name, value in each.items() if name not in ("path", "method", "body")}
            ask(proxy, site.url + each["path"], each.get("method", "GET"), each["body"].encode() if "body" in each else None, **rest)
    return list(read(tmp_path / "record"))


def test_answers_are_on_record_and_come_again_in_their_order_without_the_server(tmp_path: Path) -> None:
    with serving(Site({"/a": b"late"}, statuses=[404])) as site:
        found = record(tmp_path, site, {"path": "/a"}, {"path": "/a"})
    assert [(each.status, each.size) for each in found] == [(404, 0), (200, 4)]
    with http_cache(tmp_path / "other", report=Reporter(Memory()), replay=tmp_path / "record") as proxy:
        assert [ask(proxy, site.url + "/a") for _ in range(3)] == [(404, b""), (200, b"late"), (200, b"late")]
        status, body = ask(proxy, site.url + "/b")
    assert (status, site.url + "/b" in body.decode()) == (504, True)


def test_a_part_and_a_condition_are_asked_for_as_a_whole(tmp_path: Path) -> None:
    with serving(Site({"/a": b"whole"})) as site:
        found = record(tmp_path, site, {"path": "/a", "Range": "bytes=2-"}, {"path": "/a", "If_None_Match": '"one"'})
    assert [(each.status, each.size) for each in found] == [(200, 5), (200, 5)]


def test_what_is_for_one_client_alone_is_listed_without_its_body(tmp_path: Path) -> None:
    with serving(Site({"/a": b"secret"})) as site:
        found = record(tmp_path, site, {"path": "/a", "Authorization": "Basic eA=="}, {"path": "/a", "method": "POST", "body": "s3cret"})
    assert [(each.method, each.digest, each.why) for each in found] == [
        ("GET", "", "requested with credentials"),
        ("POST", "", "requested with a body"),
    ]
    with http_cache(tmp_path / "other", report=Reporter(Memory()), replay=tmp_path / "record") as proxy:
        status, answer = ask(proxy, site.url + "/a")
    assert status == 504
    assert re.search(re.escape(f"{site.url}/a ") + ".*: requested with credentials", answer.decode())


def test_only_the_head_of_an_answer_comes_again_as_it_was(tmp_path: Path) -> None:
    with serving(Site({"/a": b"four", "/b": b"fivefive"}, headers={"Cache-Control": "max-age=600"})) as site:
        found = record(tmp_path, site, {"path": "/a", "method": "HEAD"}, {"path": "/b"}, {"path": "/b", "method": "HEAD"})
    assert [(each.method, each.status) for each in found] == [("HEAD", 200), ("GET", 200), ("HEAD", 200)]
    with http_cache(tmp_path / "other", report=Reporter(Memory()), replay=tmp_path / "record") as proxy:
        assert [head(proxy, site.url + path) for path in ("/a", "/b")] == [(200, "4"), (200, "8")]


def test_what_the_cache_cannot_keep_is_on_record_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "index").write_text("this is no directory")
    liar = "/by-hash/SHA256/" + "0" * 64
    with serving(Site({"/a": b"whole", liar: b"other bytes"}, headers={"Cache-Control": "max-age=600"})) as site:
        found = record(tmp_path, site, {"path": "/a"}, {"path": liar})
    assert [each.size for each in found] == [5, 11]
    with http_cache(tmp_path / "other", report=Reporter(Memory()), replay=tmp_path / "record") as proxy:
        assert [ask(proxy, site.url + path) for path in ("/a", liar)] == [(200, b"whole"), (200, b"other bytes")]


def test_what_was_fetched_over_https_is_on_record_and_comes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    services = Authority()  # whoever the server is certified by
    (tmp_path / "world.pem").write_text(services.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "world.pem"))
    options = {"report": Reporter(Memory()), "allow": ["127.0.0.1"], "intercept": True}
    with serving(Site({"/a": b"over TLS"}), services.context("127.0.0.1")) as site:
        with http_cache(tmp_path / "cache", record=tmp_path / "record", **options) as proxy:
            assert ask_over_tls(proxy, site.url, "/a") == (200, b"over TLS")
    assert [(each.url, each.status, each.size) for each in read(tmp_path / "record")] == [(f"{site.url}/a", 200, 8)]
    with http_cache(tmp_path / "other", replay=tmp_path / "record", **options) as proxy:
        assert ask_over_tls(proxy, site.url, "/a") == (200, b"over TLS")


def test_a_server_that_nobody_certified_is_not_asked_in_the_guests_name(tmp_path: Path) -> None:
    with serving(Site({"/a": b"over TLS"}), Authority().context("127.0.0.1")) as site:
        with http_cache(tmp_path, report=Reporter(Memory()), allow=["127.0.0.1"], intercept=True) as proxy:
            status, answer = ask_over_tls(proxy, site.url, "/a")
    assert status == 502
    assert re.search(r"certificate\b.*\b127\.0\.0\.1", answer.decode())


@pytest.mark.parametrize("trusted", [True, False])
def test_who_trusts_the_authority_and_nobody_else_gets_an_answer_over_https(tmp_path: Path, trusted: bool) -> None:
    with http_cache(tmp_path, report=Reporter(Memory()), offline=True, intercept=True) as proxy:
        context = ssl.create_default_context(cadata=proxy.authority if trusted else None)
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as plain:
            plain.sendall(b"CONNECT far.example:443 HTTP/1.1\r\n\r\n")
            assert b"200" in plain.recv(1000)
            if not trusted:
                with pytest.raises(ssl.SSLCertVerificationError):
                    context.wrap_socket(plain, server_hostname="far.example")
                return
            with context.wrap_socket(plain, server_hostname="far.example") as secure:
                secure.sendall(b"GET /x HTTP/1.1\r\nHost: far.example\r\nConnection: close\r\n\r\n")
                answer = b"".join(iter(lambda: secure.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.1 504 ") and b"https://far.example/x" in answer


def test_a_record_that_the_disk_does_not_take_costs_no_answer_and_says_that_it_is_not_whole(tmp_path: Path) -> None:
    events = Memory()
    with serving(Site({"/a": b"first", "/b": b"second", "/c": b"third"})) as site:
        with http_cache(tmp_path / "cache", report=Reporter(events), allow=["127.0.0.1"], record=tmp_path / "record") as proxy:
            assert ask(proxy, site.url + "/a") == (200, b"first")
            shutil.rmtree(tmp_path / "record/bodies")
            (tmp_path / "record/bodies").write_text("no place for bodies")
            assert [ask(proxy, site.url + path) for path in ("/b", "/c", "/b")] == [(200, b"second"), (200, b"third"), (200, b"second")]
    assert incomplete(tmp_path / "record")
    assert [each.url for each in read(tmp_path / "record")] == [f"{site.url}/a"]
    warnings = [each for each in events.events if isinstance(each, Message) and each.level == "warning"]
    assert len([each for each in warnings if str(tmp_path / "record") in each.text]) == 1


def test_a_record_of_several_is_as_whole_as_they_are(tmp_path: Path) -> None:
    for name in ("one", "two"):
        Recording(tmp_path / name).add(Fetched("GET", f"http://far.example/{name}", 204), None)
    join([tmp_path / "one", tmp_path / "two"], tmp_path / "whole")
    mark_incomplete(tmp_path / "two")
    join([tmp_path / "one", tmp_path / "two"], tmp_path / "torn")
    assert (incomplete(tmp_path / "whole"), incomplete(tmp_path / "torn")) == (False, True)
    assert [len(list(read(tmp_path / name))) for name in ("whole", "torn")] == [2, 2]
