"""The rules of the HTTP cache, as tables: what it may store, for how long, and what it answers."""

from __future__ import annotations

import math

import pytest

from baker.proxy import policy
from baker.proxy.policy import Response

NOW = 1_700_000_000.0
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"  # NOW
HOUR_AGO = "Tue, 14 Nov 2023 21:13:20 GMT"
IN_AN_HOUR = "Tue, 14 Nov 2023 23:13:20 GMT"
HASH = "0123456789abcdef" * 4
DEB = "http://deb.example/debian/pool/main/n/nginx/nginx_1.26-1_amd64.deb"
INDEX = "http://deb.example/debian/dists/trixie/InRelease"
BY_HASH = f"http://deb.example/debian/dists/trixie/main/binary-amd64/by-hash/SHA256/{HASH}"
LENGTH = {"content-length": "5"}


def response(fields: dict[str, str], url: str = INDEX, *, received_at: float = NOW, delay: float = 0.0) -> Response:
    return Response(url, fields, received_at - delay, received_at)


@pytest.mark.parametrize(
    ("raw", "url", "login"),
    [
        ("http://deb.example/x", "http://deb.example/x", ""),
        ("HTTP://Deb.Example:80/X%2by+~", "http://deb.example/X%2by+~", ""),
        ("http://deb.example", "http://deb.example/", ""),
        ("http://deb.example:8080/x?a=b&c#d", "http://deb.example:8080/x?a=b&c", ""),
        ("https://deb.example:443/x", "https://deb.example/x", ""),
        ("http://me:secret@deb.example/x", "http://deb.example/x", "me:secret"),
        ("http://[2001:DB8::1]:80/x", "http://[2001:db8::1]/x", ""),
    ],
)
def test_a_target_has_one_spelling_and_no_login(raw: str, url: str, login: str) -> None:
    assert policy.target(raw) == policy.Target(url, login)


@pytest.mark.parametrize(
    "raw",
    [
        "/x", "*", "x", "http:///x", "ftp://deb.example/x", "http://deb.example:99999/", "http://deb.example:80:80/", "http://[::1/",
        "http://deb.example\\@127.0.0.1/", "http://deb.example/a b", "http://d\u00e9b.example/", "http://a%2eb/", "http://[fe80::1%25eth0]/",
        "http://deb.example/\r\nX: y", "http://127.1/", "http://2130706433/", "http://0/", "http://1.2.3.04/",
    ],
)  # fmt: skip
def test_what_is_no_target(raw: str) -> None:
    with pytest.raises(ValueError):
        policy.target(raw)


def test_a_query_is_not_shown() -> None:
    assert policy.target("http://deb.example/x?token=s3cret").url_without_query == "http://deb.example/x"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (DEB, True),
        ("http://deb.example/debian/pool/main/n/nginx/nginx-udeb_1_amd64.udeb", True),
        ("http://deb.example/pool/a.deb", True),
        (BY_HASH, True),
        (INDEX, False),
        (DEB + "?x", False),
        (DEB + ".sig", False),
        ("http://pool/a.deb", False),
        ("http://deb.example/a.deb", False),
        ("http://deb.example/x?/pool/a.deb", False),
        (BY_HASH[:-1], False),
        (BY_HASH + "0", False),
        (BY_HASH.replace("SHA256", "MD5Sum"), False),
    ],
)
def test_paths_that_name_their_content(url: str, expected: bool) -> None:
    assert policy.immutable(url) is expected


def test_a_path_by_hash_promises_a_digest() -> None:
    assert policy.promised_digest(BY_HASH) == f"sha256:{HASH}"
    assert policy.promised_digest(DEB) is None


@pytest.mark.parametrize(
    ("request_", "found", "expected"),
    [
        ({}, LENGTH, True),
        ({}, {"transfer-encoding": "chunked"}, True),
        ({}, {}, False),  # its end is not to be told from a break
        ({"authorization": "Basic x"}, {**LENGTH, "cache-control": "public"}, False),
        ({"cookie": "a=b"}, LENGTH, False),
        ({"range": "bytes=0-1"}, LENGTH, False),
        ({"cache-control": "no-store"}, LENGTH, False),
        ({"cache-control": "max-age=0"}, LENGTH, True),
        ({"content-length": "3"}, LENGTH, False),
        ({"content-length": "0"}, LENGTH, True),
        ({}, {**LENGTH, "cache-control": "No-Store"}, False),
        ({}, {**LENGTH, "cache-control": 'max-age=60, private="x"'}, False),
        ({}, {**LENGTH, "cache-control": "no-cache"}, True),
        ({}, {**LENGTH, "set-cookie": "a=b"}, False),
        ({}, {**LENGTH, "content-range": "bytes 0-1/5"}, False),
        ({}, {**LENGTH, "vary": "Accept-Encoding"}, True),
        ({}, {**LENGTH, "vary": "Accept, *"}, False),
        ({}, {**LENGTH, "content-type": "text/html"}, True),
    ],
)
def test_what_may_be_kept(request_: dict[str, str], found: dict[str, str], expected: bool) -> None:
    assert policy.storable("GET", request_, 200, response(found)) is expected


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", 200), ("POST", 200), ("GET", 206), ("GET", 404), ("GET", 304), ("GET", 301), ("GET", 500)]
)
def test_only_whole_answers_to_get_are_kept(method: str, status: int) -> None:
    assert not policy.storable(method, {}, status, response(LENGTH))


def test_a_page_in_the_place_of_a_package_is_not_kept() -> None:
    assert not policy.storable("GET", {}, 200, response({**LENGTH, "content-type": "text/html; charset=utf-8"}, DEB))
    assert policy.storable("GET", {}, 200, response({**LENGTH, "content-type": "application/vnd.debian.binary-package"}, DEB))


@pytest.mark.parametrize(
    ("method", "request_", "expected"),
    [
        ("GET", {}, True),
        ("HEAD", {}, True),
        ("POST", {}, False),
        ("GET", {"authorization": "x"}, False),
        ("GET", {"cookie": "x"}, False),
        ("GET", {"transfer-encoding": "chunked"}, False),
    ],
)
def test_what_the_cache_has_to_do_with(method: str, request_: dict[str, str], expected: bool) -> None:
    assert policy.cacheable(method, request_) is expected


@pytest.mark.parametrize(
    ("found", "seconds"),
    [
        ({}, 0),
        ({"last-modified": "Mon, 01 Jan 2001 00:00:00 GMT", "etag": '"x"'}, 0),  # nothing is guessed
        ({"cache-control": "max-age=60"}, 60),
        ({"cache-control": "public,MAX-AGE=60"}, 60),
        ({"cache-control": 'max-age="60"'}, 60),
        ({"cache-control": "max-age=60, s-maxage=10"}, 10),
        ({"cache-control": "max-age=60, max-age=99"}, 60),
        ({"cache-control": "max-age=soon"}, 0),
        ({"cache-control": "max-age=-1"}, 0),
        ({"cache-control": "max-age=60, no-cache"}, 0),
        ({"cache-control": "immutable"}, 0),
        ({"cache-control": "max-age=60, immutable"}, 60),
        ({"date": DATE, "expires": IN_AN_HOUR}, 3600),
        ({"expires": IN_AN_HOUR}, 3600),
        ({"date": DATE, "expires": HOUR_AGO}, 0),
        ({"date": DATE, "expires": "0"}, 0),
        ({"date": DATE, "expires": IN_AN_HOUR, "cache-control": "max-age=5"}, 5),
    ],
)
def test_for_how_long_a_response_is_fresh(found: dict[str, str], seconds: float) -> None:
    assert policy.lifetime(response(found)) == seconds


@pytest.mark.parametrize("url", [DEB, BY_HASH])
def test_what_its_path_names_is_fresh_without_end(url: str) -> None:
    old = response({"cache-control": "no-cache", "date": HOUR_AGO}, url)
    assert policy.lifetime(old) == math.inf
    assert policy.fresh(old, NOW + 1e9)


@pytest.mark.parametrize(
    ("found", "delay", "later", "age"),
    [
        ({"date": DATE}, 0, 0, 0),
        ({"date": DATE}, 0, 10, 10),
        ({"date": HOUR_AGO}, 0, 10, 3610),
        ({"date": DATE, "age": "100"}, 0, 10, 110),
        ({"date": HOUR_AGO, "age": "100"}, 0, 0, 3600),
        ({"age": "100"}, 5, 0, 105),
        ({"age": "long"}, 0, 3, 3),
        ({"date": IN_AN_HOUR}, 0, 3, 3),  # a clock that is fast
        ({}, 0, -50, 0),  # one that was set back
    ],
)
def test_how_old_a_response_is(found: dict[str, str], delay: float, later: float, age: float) -> None:
    assert policy.age(response(found, delay=delay), NOW + later) == age


FRESH = {"date": DATE, "cache-control": "max-age=60"}


@pytest.mark.parametrize(
    ("request_", "found", "url", "later", "expected"),
    [
        ({}, FRESH, INDEX, 59, True),
        ({}, FRESH, INDEX, 60, False),
        ({}, {"etag": '"x"'}, INDEX, 0, False),
        ({"cache-control": "no-cache"}, FRESH, INDEX, 0, False),
        ({"pragma": "no-cache"}, FRESH, INDEX, 0, False),
        ({"pragma": "no-cache", "cache-control": "max-age=99"}, FRESH, INDEX, 0, True),
        ({"cache-control": "max-age=0"}, FRESH, INDEX, 1, False),
        ({"cache-control": "max-age=10"}, FRESH, INDEX, 9, True),
        ({"cache-control": "max-age=10"}, FRESH, INDEX, 11, False),
        ({"cache-control": "max-stale=999"}, FRESH, INDEX, 61, False),
        ({"cache-control": "min-fresh=30"}, FRESH, INDEX, 29, True),
        ({"cache-control": "min-fresh=30"}, FRESH, INDEX, 31, False),
        ({"cache-control": "max-age=0"}, {**FRESH, "cache-control": "max-age=60, immutable"}, INDEX, 9, True),
        ({"cache-control": "max-age=0"}, {**FRESH, "cache-control": "max-age=60, immutable"}, INDEX, 61, False),
        ({"cache-control": "max-age=0"}, {}, DEB, 1e6, True),
        ({"cache-control": "max-age=0"}, {}, BY_HASH, 1e6, True),
        ({"cache-control": "no-cache"}, {}, DEB, 0, False),
        ({}, {"cache-control": "no-cache"}, INDEX, 0, False),
    ],
)
def test_whether_a_response_serves_a_request(
    request_: dict[str, str], found: dict[str, str], url: str, later: float, expected: bool
) -> None:
    assert policy.usable(request_, response(found, url), NOW + later) is expected


@pytest.mark.parametrize(
    ("found", "conditions"),
    [
        ({}, {}),
        ({"etag": ""}, {}),
        ({"etag": 'W/"x"'}, {"If-None-Match": 'W/"x"'}),
        ({"etag": '"x"', "last-modified": DATE}, {"If-None-Match": '"x"', "If-Modified-Since": DATE}),
    ],
)
def test_the_conditions_of_asking_again(found: dict[str, str], conditions: dict[str, str]) -> None:
    assert policy.validators(found) == conditions


@pytest.mark.parametrize(
    ("request_", "found", "expected"),
    [
        ({}, {"etag": '"x"', "last-modified": DATE}, False),
        ({"if-none-match": '"x"'}, {"etag": '"x"'}, True),
        ({"if-none-match": '"y", W/"x"'}, {"etag": '"x"'}, True),
        ({"if-none-match": '"y"'}, {"etag": '"x"'}, False),
        ({"if-none-match": '"y"', "if-modified-since": IN_AN_HOUR}, {"etag": '"x"', "last-modified": DATE}, False),
        ({"if-none-match": '""'}, {}, False),
        ({"if-none-match": "*"}, {}, True),
        ({"if-modified-since": DATE}, {"last-modified": DATE}, True),
        ({"if-modified-since": IN_AN_HOUR}, {"last-modified": DATE}, True),
        ({"if-modified-since": HOUR_AGO}, {"last-modified": DATE}, False),
        ({"if-modified-since": DATE}, {}, False),
        ({"if-modified-since": "yesterday"}, {"last-modified": DATE}, False),
    ],
)
def test_whether_the_client_has_it_already(request_: dict[str, str], found: dict[str, str], expected: bool) -> None:
    assert policy.not_modified(request_, found) is expected


@pytest.mark.parametrize(
    ("asked", "condition", "wanted"),
    [
        (None, None, None),
        ("bytes=0-4", None, range(5)),
        ("bytes=5-", None, range(5, 10)),
        ("bytes=5-99", None, range(5, 10)),
        ("bytes=-3", None, range(7, 10)),
        ("bytes=-99", None, range(10)),
        ("bytes=10-", None, range(10, 10)),
        ("bytes=12-14", None, range(12, 10)),
        ("bytes=4-2", None, None),
        ("bytes=-", None, None),
        ("bytes=0-1,4-5", None, None),
        ("lines=0-1", None, None),
        ("bytes=0-4", '"x"', range(5)),
        ("bytes=0-4", '"y"', None),
        ("bytes=0-4", 'W/"x"', None),
        ("bytes=0-4", DATE, range(5)),
        ("bytes=0-4", HOUR_AGO, None),
    ],
)
def test_which_bytes_are_wanted(asked: str | None, condition: str | None, wanted: range | None) -> None:
    request = {name: value for name, value in (("range", asked), ("if-range", condition)) if value is not None}
    assert policy.byte_range(request, {"etag": '"x"', "last-modified": DATE}, 10) == wanted


def test_a_weak_validator_joins_no_ranges() -> None:
    assert policy.byte_range({"range": "bytes=0-4", "if-range": 'W/"x"'}, {"etag": 'W/"x"'}, 10) is None


@pytest.mark.parametrize(
    ("vary", "request_", "varied"),
    [
        ("", {"accept": "x"}, {}),
        ("Accept-Encoding", {}, {"accept-encoding": ""}),
        ("Accept-Encoding, ACCEPT", {"accept": "x", "accept-encoding": "gzip"}, {"accept": "x", "accept-encoding": "gzip"}),
    ],
)
def test_what_a_response_depends_on(vary: str, request_: dict[str, str], varied: dict[str, str]) -> None:
    assert policy.selecting_fields(request_, {"vary": vary}) == varied
    assert policy.same_variant(varied, {**request_, "user-agent": "other"})


def test_another_variant() -> None:
    assert not policy.same_variant({"accept-encoding": "gzip"}, {})
    assert not policy.same_variant({"accept-encoding": ""}, {"accept-encoding": "gzip"})


def test_lines_of_the_connection_and_of_one_delivery_are_not_kept() -> None:
    lines = [
        ("Connection", "keep-alive, X-Hop"), ("X-Hop", "1"), ("Transfer-Encoding", "chunked"), ("Set-Cookie", "a=b"), ("Via", "1.1 x"),
        ("ETag", '"x"'), ("X-Checksum", "1"),
    ]  # fmt: skip
    assert policy.end_to_end(lines) == (("Set-Cookie", "a=b"), ("Via", "1.1 x"), ("ETag", '"x"'), ("X-Checksum", "1"))
    assert policy.stored_lines(lines) == (("ETag", '"x"'), ("X-Checksum", "1"))


def test_a_304_renews_lines_but_not_what_describes_the_body() -> None:
    kept = [("Date", HOUR_AGO), ("Age", "9"), ("Content-Type", "text/plain"), ("Cache-Control", "max-age=1"), ("ETag", '"x"')]
    new = [("date", DATE), ("cache-control", "max-age=60"), ("content-type", "text/html"), ("content-length", "0")]
    renewed = policy.fields(policy.renewed_lines(kept, new))
    assert renewed == {"date": DATE, "content-type": "text/plain", "cache-control": "max-age=60", "etag": '"x"'}


def test_fields_join_lines_of_one_name() -> None:
    assert policy.fields([("Cache-Control", "no-cache"), ("cache-control", " max-age=1 ")]) == {"cache-control": "no-cache, max-age=1"}
