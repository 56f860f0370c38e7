"""The HTTP cache on disk: it holds complete responses only, whatever other processes do in it."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from baker.core.errors import HostError
from baker.proxy.store import Entry, Store
from tests.support.until import until

URL = "http://deb.example/x?token=abc"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "http")


def add(store: Store, url: str = URL, body: bytes = b"hello", **details: object) -> Entry:
    values = {"vary": {}, "headers": (("ETag", '"x"'),), "requested_at": 1.0, "received_at": 2.0, **details}
    with store.incoming() as incoming:
        incoming.write(body[:2])
        incoming.write(body[2:])
        return store.add(incoming, Entry("GET", url, digest="", size=0, **values))  # type: ignore[arg-type]


def read(store: Store, url: str = URL, **request: str) -> bytes | None:
    with store.find("GET", url, request) as found:
        return found.body.read() if found else None


def used(store: Store, entry: Entry, at: float) -> None:
    os.utime(store._index(entry), (at, at))


def files(store: Store) -> list[str]:
    return sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_what_is_kept_comes_back(store: Store) -> None:
    entry = add(store)
    assert entry.digest == "sha256:" + hashlib.sha256(b"hello").hexdigest()
    with store.find("GET", URL, {}) as found:
        assert found is not None
        assert (found.entry.method, found.entry.url, found.entry.size) == ("GET", URL, 5)
        assert found.entry.headers == (("ETag", '"x"'),)
        assert found.entry.response.fields == {"etag": '"x"'}
        assert (found.entry.requested_at, found.entry.received_at) == (1.0, 2.0)
        assert found.body.read() == b"hello"
    assert read(store, URL + "y") is None
    with store.find("HEAD", URL, {}) as found:
        assert found is None


def test_nothing_is_there_at_first(store: Store) -> None:
    assert read(store) is None
    assert store.entries() == []
    assert store.total() == store.clean() == store.remove() == 0
    assert files(store) == []


def test_a_newer_response_takes_the_place_of_an_older_one(store: Store) -> None:
    add(store)
    add(store, body=b"other", received_at=3.0)
    assert read(store) == b"other"
    assert len(store.entries()) == 1
    assert store.clean() == len(b"hello")
    assert read(store) == b"other"


def test_variants_live_side_by_side(store: Store) -> None:
    add(store, body=b"plain", vary={"accept-encoding": ""})
    add(store, body=b"small", vary={"accept-encoding": "gzip"})
    assert read(store) == b"plain"
    assert read(store, **{"accept-encoding": "gzip"}) == b"small"
    assert read(store, **{"accept-encoding": "br"}) is None
    add(store, body=b"newer", received_at=9.0)  # the server does not vary any more
    assert read(store, **{"accept-encoding": "br"}) == read(store) == b"newer"
    store.forget("GET", URL)
    assert store.entries() == []


def test_equal_bodies_are_kept_once_and_for_as_long_as_one_needs_them(store: Store) -> None:
    first, second = add(store, URL + "1"), add(store, URL + "2")
    assert len([name for name in files(store) if name.startswith("bodies/")]) == 1
    index = store._index(first).stat().st_size
    assert store.remove(first) == index
    assert read(store, URL + "2") == b"hello"
    assert store.remove(second) == index + 5
    assert store.remove(second) == 0
    assert files(store) == []


def test_entries_come_with_size_and_last_use(store: Store) -> None:
    entries = [add(store, f"{URL}{number}", b"x" * number) for number in range(1, 4)]
    for entry, at in zip(entries, (300.0, 100.0, 200.0), strict=True):
        used(store, entry, at)
    assert [(entry.size, entry.used_at) for entry in store.entries()] == [(2, 100.0), (3, 200.0), (1, 300.0)]
    store.touch(entries[1])
    assert [entry.size for entry in store.entries()] == [3, 1, 2]
    store.remove(*store.entries()[:2])
    assert [entry.size for entry in store.entries()] == [2]
    assert store.total() == 2 + store._index(entries[1]).stat().st_size


def test_a_renewed_entry_has_new_headers_and_times_and_the_same_body(store: Store) -> None:
    entry = add(store)
    store.renew(entry, [("ETag", '"y"')], 5.0, 6.0)
    with store.find("GET", URL, {}) as found:
        assert found is not None
        assert found.entry.headers == (("ETag", '"y"'),)
        assert (found.entry.requested_at, found.entry.received_at) == (5.0, 6.0)
        assert found.body.read() == b"hello"


def test_an_open_body_outlives_its_entry(store: Store) -> None:
    entry = add(store)
    with store.find("GET", URL, {}) as found:
        assert found is not None
        store.remove(entry)
        assert found.body.read() == b"hello"


def test_what_a_user_does_with_a_body_is_not_mistaken_for_a_fault_of_it(store: Store) -> None:
    add(store)
    with pytest.raises(ConnectionResetError), store.find("GET", URL, {}):
        raise ConnectionResetError


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"version": 0}', '{"version": 1}', '{"version": 1, "headers": [1]}'])
def test_a_damaged_entry_is_absent_and_cleaned_away(store: Store, damage: str) -> None:
    entry = add(store)
    store._index(entry).write_text(damage)
    assert read(store) is None
    assert store.entries() == []
    store.clean()
    assert files(store) == []


def test_an_entry_with_a_torn_body_is_absent_until_it_is_fetched_again(store: Store) -> None:
    entry = add(store)
    store.body(entry.digest).write_bytes(b"he")
    assert read(store) is None
    add(store)
    assert read(store) == b"hello"
    store.body(entry.digest).unlink()
    assert read(store) is None
    store.clean()
    assert files(store) == []


def test_a_body_that_is_given_up_leaves_nothing(store: Store) -> None:
    with pytest.raises(ConnectionResetError), store.incoming() as incoming:
        incoming.write(b"half")
        raise ConnectionResetError
    assert files(store) == []


def test_nothing_is_readable_by_others(store: Store) -> None:
    add(store)
    for path in store.root.rglob("*"):
        if path.is_file() and path.suffix != ".lock":
            assert path.parent.stat().st_mode & 0o077 == 0


def test_a_full_disk_is_an_error_of_the_entry_alone(store: Store) -> None:
    add(store)
    old, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, old[1]))
    try:
        with store.incoming() as incoming:
            for _ in range(4):
                incoming.write(b"x" * 50_000)
            assert incoming.error is not None
            with pytest.raises(HostError, match="no space left"):
                store.add(incoming, Entry("GET", URL + "2", {}, (), "", 0, 1.0, 2.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, ignored)
    assert len(files(store)) == 2
    assert read(store) == b"hello"


def test_a_place_that_cannot_be_written_is_an_error_of_the_entry_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = Store(tmp_path / "file" / "http")
    with store.incoming() as incoming:
        incoming.write(b"x")
        with pytest.raises(HostError):
            store.add(incoming, Entry("GET", URL, {}, (), "", 0, 1.0, 2.0))
    assert read(store) is None


WRITER = """
import sys
from pathlib import Path
from baker.proxy.store import Store
with Store(Path(sys.argv[1])).incoming() as incoming:
    incoming.write(b"half of it")
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(store: Store) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(store.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin and child.stdout and child.stdout.readline() == b"ready\n"
    yield child
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()


def test_a_killed_writer_leaves_a_whole_cache(store: Store, writer: subprocess.Popen[bytes]) -> None:
    add(store)
    assert store.clean() == 0, "a live writer's file was taken away"
    assert len(files(store)) == 3
    writer.kill()
    writer.wait()
    assert len(files(store)) == 3
    assert store.clean_tmp() == len(b"half of it")
    assert len(files(store)) == 2
    assert read(store) == b"hello"


ADDER = """
import sys
from pathlib import Path
from tests.unit.test_proxy_store import add, Store
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(60):
    add(store, f"http://deb.example/{number % 10}", b"%d" % (number % 7) * 1000)
"""


def test_processes_that_add_while_others_clean_up(store: Store) -> None:
    root = Path(__file__).resolve().parents[2]
    adders = [
        subprocess.Popen([sys.executable, "-c", ADDER, str(store.root)], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for adder in adders:
        assert adder.stdout and adder.stdout.readline() == "ready\n"
    for adder in adders:
        assert adder.stdin
        adder.stdin.write("\n")
        adder.stdin.flush()

    def cleaned_up() -> bool:
        store.clean()
        store.remove(*store.entries()[:2])
        return all(adder.poll() is not None for adder in adders)

    until(cleaned_up, 60, "the processes that add have ended", pause=0.005)
    assert [adder.returncode for adder in adders] == [0, 0]
    for adder in adders:
        assert adder.stdin and adder.stdout
        adder.stdin.close()
        adder.stdout.close()
    for entry in store.entries():
        body = read(store, entry.url)
        assert body is not None, "an entry without its body"
        assert "sha256:" + hashlib.sha256(body).hexdigest() == entry.digest
    store.clean()
    store.remove(*store.entries())
    assert files(store) == []


def test_an_index_file_names_no_secret_of_the_request(store: Store) -> None:
    entry = add(store, vary={"accept": "x"})
    value = json.loads(store._index(entry).read_text())
    assert set(value) == {"version", "method", "url", "vary", "headers", "digest", "size", "requested_at", "received_at"}
