"""Measures recording and replaying of downloads: `python -m bench.recording [--small N] [--large N] [--mib N] [--runs N]`

Downloads many small files and a few large ones, one after the other as apt does, through bake's proxy from a server on loopback: without a
record, with one, and from that record after the server has stopped. Every run begins with an empty cache. The variants alternate; the
output has the median of their seconds. A server on loopback is faster than any network, so recording costs relatively more than in a build
(goal there: at most 10 %). The goal for replaying is to be faster than downloading.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import shutil
import statistics
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from baker.core.events import Memory, Reporter
from baker.proxy.proxy import Proxy, http_cache

SMALL = 20_000  # bytes of a small file, such as a small package
PIECE = 1 << 20
SECONDS = 120.0  # for one answer
WAYS = ("direct", "proxy", "recorded", "replayed")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.recording", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--small", type=int, default=300, metavar="N", help=f"how many files of {SMALL} bytes (default: 300)")
    parser.add_argument("--large", type=int, default=2, metavar="N", help="how many large files (default: 2)")
    parser.add_argument("--mib", type=int, default=64, metavar="N", help="size of a large file in MiB (default: 64)")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="how often each is measured (default: 5)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where the cache and the record are, for the time being")
    args = parser.parse_args(argv)
    files = {f"/small/{number}": SMALL for number in range(args.small)}
    files |= {f"/large/{number}": args.mib << 20 for number in range(args.large)}
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="bake-bench-recording-", dir=args.work) as directory:
        for _ in range(args.runs):
            for way, seconds in turn(files, Path(directory)):
                taken[way].append(seconds)
    medians = {way: statistics.median(times) for way, times in taken.items()}
    for way, times in taken.items():
        print(f"{way:<10}{medians[way]:8.3f} s   ({min(times):.3f} to {max(times):.3f})")
    over, gain = medians["recorded"] / medians["proxy"] - 1, medians["recorded"] / medians["replayed"]
    print(f"recording adds {over:+.1%} to the same downloads without a record; replaying is {gain:.2f} times as fast as fetching")
    return int(medians["replayed"] >= medians["proxy"])


def turn(files: dict[str, int], directory: Path) -> Iterator[tuple[str, float]]:
    """Run each variant once; returns the seconds of the downloads. The start of a proxy does not count, because builds start theirs in
    parallel."""
    record = directory / "record"
    report = Reporter(Memory())
    with serving(files) as site:
        place = site.removeprefix("http://")
        yield "direct", fetch_all(place, "", files)
        with http_cache(directory / "cache-1", report=report, allow=["127.0.0.1"]) as proxy:
            yield "proxy", fetch_all(through(proxy), site, files)
        with http_cache(directory / "cache-2", report=report, allow=["127.0.0.1"], record=record) as proxy:
            yield "recorded", fetch_all(through(proxy), site, files)
    with http_cache(directory / "cache-3", report=report, replay=record) as proxy:
        yield "replayed", fetch_all(through(proxy), site, files)
    for each in directory.iterdir():
        shutil.rmtree(each)


def through(proxy: Proxy) -> str:
    return f"127.0.0.1:{proxy.port}"


def fetch_all(place: str, site: str, files: dict[str, int]) -> float:
    """Seconds for all files over one connection to `place`. RuntimeError when one is incomplete."""
    connection = http.client.HTTPConnection(place, timeout=SECONDS)
    began = time.monotonic()
    try:
        for path, size in files.items():
            connection.request("GET", site + path)
            response = connection.getresponse()
            got = 0
            while piece := response.read(PIECE):
                got += len(piece)
            if (response.status, got) != (200, size):
                raise RuntimeError(f"{path}: {response.status}, {got} of {size} bytes")
    finally:
        connection.close()
    return time.monotonic() - began


@contextmanager
def serving(files: dict[str, int]) -> Iterator[str]:
    """A server on loopback with these files, each with different content, and cacheable as on a package mirror."""
    contents = {path: content(path, size) for path, size in files.items()}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # otherwise every response waits for an acknowledgement that is delayed by 40 ms

        def do_GET(self) -> None:
            data = contents[urllib.parse.urlsplit(self.path).path]
            self.send_response(200)
            for name, value in (("Content-Length", str(len(data))), ("Cache-Control", "max-age=86400"), ("ETag", f'"{len(data)}"')):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def content(path: str, size: int) -> bytes:
    """`size` bytes that differ for each path."""
    piece = hashlib.sha512(path.encode()).digest() * 512
    return (piece * (size // len(piece) + 1))[:size]


if __name__ == "__main__":
    sys.exit(main())
