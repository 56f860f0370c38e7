"""The source `url`: a disk image at an http(s) URL, identified by its checksum. It is downloaded once and imported into the store.

cache/downloads/<key>.part   an incomplete download, which the next build resumes
cache/urls/<key>.json        {"digest", "blob", "virtual_size", "format", "compression", "url"}

The key depends on the checksum only.
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
    """Download disk images."""

    def __init__(self, pause: Callable[[float], None] = time.sleep) -> None:
        self._pause = pause  # sleeps for the given seconds between two tries

    def peek(self, spec: UrlSource, context: Context) -> SourceImage | None:
        """The image that was imported with this checksum, from any URL."""
        entry = _index(context).read(_key(spec))
        disk = import_disk.disk_of(entry, context.store)
        return _source(spec, entry, disk) if entry and disk and disk_image.has_format(entry, spec.format) else None

    def fetch(self, spec: UrlSource, context: Context) -> SourceImage:
        """Download, verify and import the image, resuming an earlier build's incomplete download. SourceError when that fails."""
        key = _key(spec)
        downloads = ensure(context.home.cache / "downloads")
        waited: list[str] = []

        def on_wait() -> None:
            waited.append(key)
            context.report.info(f"another process is downloading {without_login(spec.url)}: waiting for it")

        with exclusive(downloads, key, on_wait):
            found = self.peek(spec, context) if waited else None
            return found or self._fetch(spec, downloads / f"{key}.part", context)

    def _fetch(self, spec: UrlSource, part: Path, context: Context) -> SourceImage:
        key = _key(spec)
        download = Download(spec.url, part, _reporter(context, spec.url), self._pause)
        resumed = part.exists()
        self._download(download, spec, context, again=resumed)
        work = ensure(context.scratch / f"url-{key[:12]}")
        entry = {**disk_image.to_store(part, spec.format, context, work), "url": without_login(spec.url)}
        shutil.rmtree(work)
        _index(context).write(key, entry)
        download.discard()
        disk = import_disk.disk_of(entry, context.store)
        assert disk is not None
        return _source(spec, entry, disk)

    def _download(self, download: Download, spec: UrlSource, context: Context, *, again: bool) -> None:
        """Download and verify. With `again`, a wrong checksum leads to a second download from the start: a resumed part may be stale."""
        context.report.info(f"downloading {download.display_url}")
        download.run()
        try:
            disk_image.verify(download.part, spec.checksum, download.display_url)
        except SourceError as error:
            download.discard()
            if not again:
                raise
            context.report.warn(f"the resumed download has a wrong checksum: downloading it again ({error.message.splitlines()[0]})")
            self._download(download, spec, context, again=False)


def _reporter(context: Context, url: str) -> Callable[[int, int], None]:
    """A callback that reports progress at most every PROGRESS_SECONDS, and at the end."""
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
