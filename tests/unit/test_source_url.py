"""The source `url`: real HTTP on loopback, with the faults that networks have."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from baker.core.errors import SourceError
from baker.core.events import Memory, Message, Progress
from baker.core.model import SourceImage
from baker.sources.base import Context
from baker.sources.url import Url
from baker.template.model import UrlSource
from tests.support.sources import context_in
from tests.support.web import Site, serving

RAW = b"BOOT" + os.urandom(700_000) + bytes(348_572)
DIGEST = f"sha256:{hashlib.sha256(RAW).hexdigest()}"


def checksum(data: bytes) -> str:
    return f"sha512:{hashlib.sha512(data).hexdigest()}"


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site({"/disk.raw": RAW})) as site:
        yield site


@pytest.fixture
def events() -> Memory:
    return Memory()


@pytest.fixture
def context(tmp_path: Path, events: Memory) -> Iterator[Context]:
    with context_in(tmp_path, sink=events) as context:
        yield context


def spec(site: Site, path: str = "/disk.raw", data: bytes = RAW) -> UrlSource:
    return UrlSource(url=site.url + path, checksum=checksum(data))


def raw_of(image: SourceImage, tmp_path: Path) -> bytes:
    """The disk as qemu-img sees it."""
    out = tmp_path / "out.raw"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image.disk.path, out], check=True)
    return out.read_bytes()


def test_download_import_and_find_again(site: Site, context: Context, events: Memory, tmp_path: Path) -> None:
    source = Url()
    assert source.peek(spec(site), context) is None
    image = source.fetch(spec(site), context)
    assert image.digest == DIGEST
    assert raw_of(image, tmp_path) == RAW
    assert source.peek(spec(site), context) == image
    assert len(site.requests) == 1
    done = [(event.done, event.total) for event in events.events if isinstance(event, Progress) and event.label == "disk.raw"]
    assert done[-1] == (len(RAW), len(RAW))
    assert not list((context.home.cache / "downloads").glob("*.part")), "the download is not kept twice"
    assert not list(context.scratch.iterdir())


def test_dropped_connections_are_resumed(site: Site, context: Context, tmp_path: Path) -> None:
    site.drop_after = [300_000, 250_000]
    pauses: list[float] = []
    image = Url(pauses.append).fetch(spec(site), context)
    assert raw_of(image, tmp_path) == RAW
    ranges = [request.get("range") for request in site.requests]
    assert ranges[0] is None
    assert ranges[1:] == ["bytes=300000-", "bytes=550000-"]
    assert site.requests[1]["if-range"] == '"one"'
    assert all(0 < pause <= 30 for pause in pauses) and len(pauses) == 2


def test_a_killed_download_is_gone_on_with_by_the_next_build(site: Site, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def killed(_: float) -> None:
        raise Killed

    site.drop_after = [400_000]
    with context_in(tmp_path) as first, pytest.raises(Killed):
        Url(killed).fetch(spec(site), first)
    with context_in(tmp_path) as second:
        assert raw_of(Url().fetch(spec(site), second), tmp_path) == RAW
    assert site.requests[1]["range"] == "bytes=400000-"


def test_a_file_that_changed_meanwhile_is_downloaded_anew(site: Site, context: Context, tmp_path: Path) -> None:
    site.files["/disk.raw"] = b"old" + RAW[3:]
    site.drop_after = [300_000]

    def replaced(_: float) -> None:
        site.files["/disk.raw"], site.etag = RAW, '"two"'

    assert raw_of(Url(replaced).fetch(spec(site), context), tmp_path) == RAW


def test_an_old_part_without_validator_costs_one_more_download(site: Site, context: Context, events: Memory, tmp_path: Path) -> None:
    """The server tells neither ETag nor date: only the checksum shows that the parts do not fit."""
    site.etag = None
    site.files["/disk.raw"] = b"old" + RAW[3:]
    site.drop_after = [300_000]

    def replaced(_: float) -> None:
        site.files["/disk.raw"] = RAW

    with pytest.raises(SourceError, match=checksum(RAW)) as failure:
        Url(replaced).fetch(spec(site), context)
    assert failure.value.code == "source.checksum"
    assert raw_of(Url().fetch(spec(site), context), tmp_path) == RAW


def test_a_server_without_ranges_starts_over(site: Site, context: Context, tmp_path: Path) -> None:
    site.ranges = False
    site.drop_after = [300_000]
    assert raw_of(Url(lambda _: None).fetch(spec(site), context), tmp_path) == RAW
    assert len(site.requests) == 2


def test_a_part_that_is_whole_already_is_taken(site: Site, tmp_path: Path) -> None:
    with context_in(tmp_path) as context:
        Url().fetch(spec(site), context)
        downloads = context.home.cache / "downloads"
        key = next((context.home.cache / "urls").glob("*.json")).stem
        (downloads / f"{key}.part").write_bytes(RAW)
        assert Url().fetch(spec(site), context).digest == DIGEST
    assert site.requests[-1]["range"] == f"bytes={len(RAW)}-"


def test_a_wrong_checksum_names_both_digests(site: Site, context: Context) -> None:
    wrong = UrlSource(url=site.url + "/disk.raw", checksum="sha256:" + "0" * 64)
    with pytest.raises(SourceError) as failure:
        Url().fetch(wrong, context)
    assert failure.value.code == "source.checksum"
    assert "0" * 64 in failure.value.message and DIGEST in failure.value.message
    assert "SHA256SUMS" in failure.value.hint
    assert not list((context.home.cache / "downloads").glob("*.part")), "nobody resumes a wrong file"


@pytest.mark.parametrize(("status", "words"), [(404, "no such file"), (403, "forbidden"), (401, "login")])
def test_refusals_are_final(site: Site, context: Context, status: int, words: str) -> None:
    site.statuses = [status]
    with pytest.raises(SourceError, match=f"{status}.*{words}") as failure:
        Url().fetch(spec(site), context)
    assert failure.value.code == "source.download-refused"
    assert len(site.requests) == 1


def test_passing_troubles_are_waited_out_and_then_given_up(site: Site, context: Context) -> None:
    pauses: list[float] = []
    site.statuses = [503, 500]
    assert Url(pauses.append).fetch(spec(site), context).digest == DIGEST
    site.statuses = [503] * 20
    with pytest.raises(SourceError, match="503") as failure:
        Url(pauses.append).fetch(spec(site, data=b"other"), context)
    assert failure.value.code == "source.download-failed"
    assert len(site.statuses) == 15


def test_nobody_listens(context: Context) -> None:
    with serving(Site({})) as gone:
        url = gone.url
    with pytest.raises(SourceError, match=f"{url}/x.*refused.*5 tries") as failure:
        Url(lambda _: None).fetch(UrlSource(url=f"{url}/x", checksum=checksum(b"")), context)
    assert failure.value.code == "source.download-failed"


@pytest.mark.parametrize(
    "compress",
    [lzma.compress, gzip.compress, lambda data: subprocess.run(["zstd", "-c"], input=data, capture_output=True, check=True).stdout],
)
def test_compressed_images(site: Site, context: Context, tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    packed = compress(RAW)
    site.files["/download"] = packed
    image = Url().fetch(spec(site, "/download", packed), context)
    assert image.digest == DIGEST
    assert raw_of(image, tmp_path) == RAW


def test_damaged_compression_is_an_error(site: Site, context: Context) -> None:
    packed = lzma.compress(RAW)[:100_000]
    site.files["/disk.raw.xz"] = packed
    with pytest.raises(SourceError, match="xz") as failure:
        Url().fetch(spec(site, "/disk.raw.xz", packed), context)
    assert failure.value.code == "source.damaged"


def test_login_goes_to_the_server_and_nowhere_else(site: Site, context: Context, events: Memory) -> None:
    url = site.url.replace("://", "://user:pa55word@") + "/disk.raw"
    image = Url().fetch(UrlSource(url=url, checksum=checksum(RAW)), context)
    assert site.requests[0]["authorization"] == "Basic dXNlcjpwYTU1d29yZA=="
    told = [repr(image)] + [event.text for event in events.events if isinstance(event, Message)]
    told += [path.read_text() for path in context.home.cache.rglob("*.json")]
    assert "pa55word" not in " ".join(told)


def test_a_proxy_is_taken_from_the_environment(site: Site, tmp_path: Path) -> None:
    """The loopback server stands in for the proxy: it is asked for the whole URL."""
    site.files["http://images.example/disk.raw"] = RAW
    script = "import sys, pathlib; from baker.sources.download import Download as D; D(sys.argv[1], pathlib.Path(sys.argv[2]), print).run()"
    part = tmp_path / "disk.part"
    environment = {"http_proxy": site.url, "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", script, "http://images.example/disk.raw", part], env=environment, check=True)
    assert part.read_bytes() == RAW
