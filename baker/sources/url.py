"""The source `url`: a disk image behind an http(s) URL, told by its checksum. Downloaded once, imported into the store.

cache/downloads/<key>.part   what has come so far, resumed by the next build
cache/urls/<key>.json        {"digest", "blob", "virtual_size", "format", "url"}; the key is of the checksum alone
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from baker.core.errors import SourceError
from baker.core.home import ensure
from baker.core.locks import exclusive
from baker.core.model import Disk, SourceImage
from baker.sources import disk_image, import_disk
from baker.sources.base import Context
from baker.sources.cache_index import Index
from baker.sources.download import Download, without_login
from baker.template.model import UrlSource

PROGRESS_SECONDS = 0.2


class Url:
    """Downloads disk images."""

    def __init__(self, pause: Callable[[float], None] = time.sleep) -> None:
        self._pause = pause  # between tries, seconds

    def peek(self, spec: UrlSource, context: Context) -> SourceImage | None:
        """The image with this checksum, from whichever URL it came."""
        entry = _index(context).read(_key(spec))
        disk = import_disk.disk_of(entry, context.store)
        return _source(spec, entry, disk) if entry and disk and disk_image.known(entry, spec.format) else None

    def fetch(self, spec: UrlSource, context: Context) -> SourceImage:
        """Download, check and import; a part that an earlier build left is gone on with. SourceError when it cannot be had."""
        key = _key(spec)
        downloads = ensure(context.home.cache / "downloads")
        waited: list[str] = []

        def on_wait() -> None:
            waited.append(key)
            context.report.info(f"another process downloads {without_login(spec.url)} now: waiting for it")

        with exclusive(downloads, key, on_wait):
            found = self.peek(spec, context) if waited else None
            return found or self._fetch(spec, downloads / f"{key}.part", context)

    def _fetch(self, spec: UrlSource, part: Path, context: Context) -> SourceImage:
        key = _key(spec)
        download = Download(spec.url, part, _reporter(context, spec.url), self._pause)
        resumed = part.exists()
        self._download(download, spec, context, again=resumed)
        work = ensure(context.scratch / f"url-{key[:12]}")
        entry = {**disk_image.take(part, spec.format, context, work), "url": without_login(spec.url)}
        shutil.rmtree(work)
        _index(context).write(key, entry)
        download.forget()
        disk = import_disk.disk_of(entry, context.store)
        assert disk is not None
        return _source(spec, entry, disk)

    def _download(self, download: Download, spec: UrlSource, context: Context, *, again: bool) -> None:
        """Download and verify. A wrong checksum after resuming may come of the old part: then once more from the start."""
        context.report.info(f"downloading {download.shown}")
        download.run()
        try:
            disk_image.verify(download.part, spec.checksum, download.shown)
        except SourceError as error:
            download.forget()
            if not again:
                raise
            context.report.warn(
                f"the resumed download is not what the template says: downloading it anew ({error.message.splitlines()[0]})"
            )
            self._download(download, spec, context, again=False)


def _reporter(context: Context, url: str) -> Callable[[int, int], None]:
    """Reports progress a few times a second at most, and the end."""
    label = without_login(url).rpartition("/")[2] or url
    last = 0.0

    def on_bytes(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PROGRESS_SECONDS or done == total:
            last = now
            context.report.progress(label, done, total)

    return on_bytes


def _key(spec: UrlSource) -> str:
    return hashlib.sha256(f"url\0{spec.checksum.lower()}".encode()).hexdigest()


def _source(spec: UrlSource, entry: Mapping[str, Any], disk: Disk) -> SourceImage:
    url = without_login(spec.url)
    pins = {"url": url, "checksum": spec.checksum.lower(), "format": str(entry["format"])}
    title = f"{url.partition('?')[0].rpartition('/')[2] or url} (url)"
    return SourceImage("url", title, str(entry["digest"]), disk, pins=pins, chain=(str(entry["blob"]),))


def _index(context: Context) -> Index:
    return Index(context.home.cache / "urls")
