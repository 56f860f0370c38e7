"""What the cache of HTTP responses keeps on disk: bodies by content, and an entry for every response that has one.

    ROOT/bodies/ab/<64 hex digits>              a body, named by its SHA-256; "ab" are its first two digits
    ROOT/index/ab/<64 hex digits>.<16>.json     an entry: the SHA-256 of method and URL, and that of what `Vary` names
    ROOT/tmp/<name>                             a file on its way in, locked by the live process that writes it

Both are renamed to their names when they are whole, the body first; so whatever kills a process, an entry is there with all of
its body or not at all. Nothing is synced: what a crash of the host tears has another size than its entry says, and counts as
absent. Any number of processes may use the directory at once: two that fetch the same leave one, and only `remove` and `clean`
keep others from adding meanwhile. When a file was last changed is when its entry was last used.

An entry holds no credentials: what was asked for with some is never kept, and a URL has no login by then. It may hold the query
of a URL, so the files are their user's alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO

from baker.core import locks
from baker.core.disk_space import host_error
from baker.core.errors import HostError
from baker.core.home import ensure
from baker.proxy import policy

VERSION = 1


@dataclass(frozen=True)
class Entry:
    """A response that is kept: what was asked, what came, and when."""

    method: str
    url: str
    vary: Mapping[str, str]  # the fields of the request that chose this response among those of its URL
    headers: tuple[tuple[str, str], ...]
    digest: str
    size: int  # bytes of the body
    requested_at: float
    received_at: float
    used_at: float = 0.0

    @property
    def response(self) -> policy.Response:
        return policy.Response(self.url, policy.fields(self.headers), self.requested_at, self.received_at)


@dataclass(frozen=True)
class Found:
    """An entry and its body, open for reading: it stays readable if the entry is removed meanwhile."""

    entry: Entry
    body: BinaryIO


class Incoming:
    """A file on its way in. A disk that does not take it makes it one that cannot be kept (`error` says why), and nothing else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.error: HostError | None = None
        self._digest = hashlib.sha256()
        self._file: BinaryIO | None = None

    @property
    def digest(self) -> str:
        return f"sha256:{self._digest.hexdigest()}"

    def open(self) -> None:
        with self._noting():
            ensure(self.path.parent)
            while self._file is None or not os.fstat(self._file.fileno()).st_nlink:  # taken for a leftover before it was locked
                self._close()
                self._file = self.path.open("xb", buffering=0)
                locks.lock(self._file)

    def write(self, data: bytes) -> None:
        """Add `data`; nothing happens any more after an error."""
        with self._noting():
            rest = memoryview(data)
            while self._file is not None and rest:
                rest = rest[self._file.write(rest) :]
            self._digest.update(data)
            self.size += len(data)

    def discard(self) -> None:
        """Give the file back, unless it has become a body."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def move(self, place: Path) -> None:
        """Give the file, which is whole, its name for good."""
        if self.error is not None:
            raise self.error
        ensure(place.parent)
        self.path.rename(place)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            with _host_errors(self.path):
                yield
        except HostError as error:
            self.error = error
            self.discard()


class Store:
    """The cache in the directory `root`, which is made at the first addition."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    # --- using -------------------------------------------------------------------------------------------------------

    @contextmanager
    def find(self, method: str, url: str, request: policy.Fields) -> Iterator[Found | None]:
        """The newest response that is kept for this request, with its body open. Whether it is still good is the policy's question."""
        variants = [entry for path in self._variants(method, url) if (entry := _read(path)) and policy.same_variant(entry.vary, request)]
        with ExitStack() as stack:
            bodies = (self._open(entry, stack) for entry in sorted(variants, key=lambda entry: entry.received_at, reverse=True))
            yield next((found for found in bodies if found), None)

    def _open(self, entry: Entry, stack: ExitStack) -> Found | None:
        try:
            body = stack.enter_context(self.body(entry.digest).open("rb"))
        except OSError:
            return None
        return Found(entry, body) if os.fstat(body.fileno()).st_size == entry.size else None

    def touch(self, entry: Entry) -> None:
        """Note that `entry` was used now."""
        with suppress(OSError):
            os.utime(self._index(entry))

    # --- adding ------------------------------------------------------------------------------------------------------

    @contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """A body on its way in, to be given to `keep` when it is whole; gone at the end unless it was kept."""
        incoming = Incoming(self.root / "tmp" / secrets.token_hex(8))
        incoming.open()
        try:
            yield incoming
        finally:
            incoming.discard()

    def keep(self, incoming: Incoming, entry: Entry) -> Entry:
        """Keep a whole body as the response that `entry` describes, in the place of an older one. HostError when the disk refuses."""
        entry = replace(entry, digest=incoming.digest, size=incoming.size)
        with self._adding():
            incoming.move(self.body(entry.digest))  # also over one that is there: it is the same, or torn
            self._write(entry)
        return entry

    def renew(self, entry: Entry, headers: Iterable[tuple[str, str]], requested_at: float, received_at: float) -> Entry:
        """Note that the server stands by `entry` as of now. HostError when the disk refuses."""
        entry = replace(entry, headers=tuple(headers), requested_at=requested_at, received_at=received_at)
        with self._adding():
            self._write(entry)
        return entry

    def forget(self, method: str, url: str) -> None:
        """Drop all that is kept of `url`, because it has changed on the server; `clean` takes the bodies away."""
        for path in self._variants(method, url):
            _unlink(path)

    # --- keeping house -----------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """All entries, the least recently used first."""
        found = (_read(path) for path in self.root.glob("index/??/*.json"))
        return sorted((entry for entry in found if entry), key=lambda entry: entry.used_at)

    def total(self) -> int:
        """The bytes of all files here. Less than the sum of the entries' sizes where two have one body."""
        return sum(_size(path) for path in self.root.glob("*/**/*"))

    def remove(self, *entries: Entry) -> int:
        """Remove entries, and their bodies unless others have the same; returns how many bytes that freed."""
        with self._alone():
            freed = sum(_unlink(self._index(entry)) for entry in entries)
            needed = {entry.digest for entry in self.entries()}
            return freed + sum(_unlink(self.body(digest)) for digest in {entry.digest for entry in entries} - needed)

    def clean(self) -> int:
        """Remove what no entry needs: bodies of replaced entries, entries without a body, and what dead processes left in tmp.

        Returns how many bytes that freed. Safe at any time, also beside running builds.
        """
        if not self.root.is_dir():
            return 0
        with self._alone():
            freed = self.clean_tmp()
            needed = set()
            for path in self.root.glob("index/??/*"):
                entry = _read(path)
                if entry and _size(self.body(entry.digest)) == entry.size and path == self._index(entry):
                    needed.add(self.body(entry.digest))
                else:
                    freed += _unlink(path)
            return freed + sum(_unlink(path) for path in self.root.glob("bodies/??/*") if path not in needed)

    def clean_tmp(self) -> int:
        """Remove what dead processes left in tmp: files that nobody holds a lock on."""
        freed = 0
        for path in self.root.glob("tmp/*"):
            with suppress(OSError), path.open("rb") as file:
                if locks.lock(file, wait=False):
                    freed += _unlink(path)
        return freed

    # --- places ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _adding(self) -> Iterator[None]:
        with _host_errors(self.root), locks.shared(self.root, "store"):
            yield

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with _host_errors(self.root), locks.exclusive(self.root, "store"):
            yield

    def _write(self, entry: Entry) -> None:
        value = asdict(entry)
        del value["used_at"]
        with self.incoming() as file:
            file.write(json.dumps({"version": VERSION, **value}).encode())
            file.move(self._index(entry))

    def _variants(self, method: str, url: str) -> list[Path]:
        name = _sha256(f"{method} {url}")
        return list((self.root / "index" / name[:2]).glob(f"{name}.*.json"))

    def _index(self, entry: Entry) -> Path:
        name, variant = _sha256(f"{entry.method} {entry.url}"), _sha256(json.dumps(dict(entry.vary), sort_keys=True))
        return self.root / "index" / name[:2] / f"{name}.{variant[:16]}.json"

    def body(self, digest: str) -> Path:
        """Where a body is."""
        name = digest.removeprefix("sha256:")
        return self.root / "bodies" / name[:2] / name


@contextmanager
def _host_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise host_error(error, path) from error


def _read(path: Path) -> Entry | None:
    """The entry in a file; None when it is gone, torn, or of another version."""
    try:
        value = json.loads(path.read_bytes())
        if value.pop("version") != VERSION:
            return None
        headers = tuple((str(name), str(text)) for name, text in value.pop("headers"))
        return Entry(**value, headers=headers, used_at=path.stat().st_mtime)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


def _unlink(path: Path) -> int:
    """Remove a file; how many bytes it had, 0 when it was gone already."""
    try:
        size = path.stat().st_size
        path.unlink()
    except OSError:
        return 0
    return size
