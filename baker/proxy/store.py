"""The HTTP cache on disk: bodies by their content, and an entry for every stored response.

    ROOT/bodies/ab/<64 hex digits>              a body, named by its SHA-256; "ab" are its first two digits
    ROOT/index/ab/<64 hex digits>.<16>.json     an entry: the SHA-256 of method and URL, and that of the fields that `Vary` names
    ROOT/tmp/<name>                             a file being written, locked by the process that writes it

Complete files are renamed to their places, the body before its entry, so that a killed process leaves no entry without its complete
body. Files are not synced: a body that a crash of the host truncates has another size than its entry says, and counts as missing.
Any number of processes may use the directory at the same time. Of two that fetch the same, one result stays. Only `remove` and
`clean` exclude processes that add files. The modification time of an entry's file is the time of its last use.

An entry contains no credentials: responses to requests with credentials are not stored, and its URL has no login. It may contain the
query of a URL, so only the user may read the files.
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

VERSION = 1  # of the format of an entry


@dataclass(frozen=True)
class Entry:
    """A stored response: the request, the header lines, the digest of the body, and times in seconds since 1970."""

    method: str
    url: str
    vary: Mapping[str, str]  # the request fields that selected this response among those of its URL
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
class StoredResponse:
    """An entry and its body, open for reading. The body stays readable when the entry is removed."""

    entry: Entry
    body: BinaryIO


class IncomingFile:
    """A file that is being written. After a failed write it cannot be moved to its place, and `error` has the reason."""

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
        """Create and lock the file."""
        with self._recording_error():
            ensure(self.path.parent)
            while self._file is None or not os.fstat(self._file.fileno()).st_nlink:  # `clean_tmp` removed it before it was locked
                self._close()
                self._file = self.path.open("xb", buffering=0)
                locks.lock(self._file)

    def write(self, data: bytes) -> None:
        """Append `data`. After an error, only size and digest are updated."""
        with self._recording_error():
            rest = memoryview(data)
            while self._file is not None and rest:
                rest = rest[self._file.write(rest) :]
            self._digest.update(data)
            self.size += len(data)

    def discard(self) -> None:
        """Remove the file, unless it has been moved to its place."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def move(self, place: Path) -> None:
        """Move the complete file to its place. Raises the error of a failed write."""
        if self.error is not None:
            raise self.error
        ensure(place.parent)
        self.path.rename(place)

    @contextmanager
    def _recording_error(self) -> Iterator[None]:
        """Keep a failed operation as `error` instead of raising it."""
        try:
            with _host_errors(self.path):
                yield
        except HostError as error:
            self.error = error
            self.discard()


class Store:
    """The cache in the directory `root`, which is created when the first file is added."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    # --- lookup ------------------------------------------------------------------------------------------------------

    @contextmanager
    def find(self, method: str, url: str, request: policy.Fields) -> Iterator[StoredResponse | None]:
        """Find the newest stored response for this request and open its body; None without one. policy.py decides whether it is usable."""
        variants = [entry for path in self._variants(method, url) if (entry := _read(path)) and policy.same_variant(entry.vary, request)]
        with ExitStack() as stack:
            bodies = (self._open(entry, stack) for entry in sorted(variants, key=lambda entry: entry.received_at, reverse=True))
            yield next((stored for stored in bodies if stored), None)

    def _open(self, entry: Entry, stack: ExitStack) -> StoredResponse | None:
        try:
            body = stack.enter_context(self.body(entry.digest).open("rb"))
        except OSError:
            return None
        return StoredResponse(entry, body) if os.fstat(body.fileno()).st_size == entry.size else None

    def touch(self, entry: Entry) -> None:
        """Set the time of the last use of `entry` to now."""
        with suppress(OSError):
            os.utime(self._index(entry))

    # --- adding ------------------------------------------------------------------------------------------------------

    @contextmanager
    def incoming(self) -> Iterator[IncomingFile]:
        """Receive a body, to be passed to `add` when it is complete; removed at the end of the block otherwise."""
        incoming = IncomingFile(self.root / "tmp" / secrets.token_hex(8))
        incoming.open()
        try:
            yield incoming
        finally:
            incoming.discard()

    def add(self, incoming: IncomingFile, entry: Entry) -> Entry:
        """Store a complete body as the response that `entry` describes, replacing an older one. HostError when that fails.

        Returns the entry with the digest and size of the body.
        """
        entry = replace(entry, digest=incoming.digest, size=incoming.size)
        with self._shared():
            incoming.move(self.body(entry.digest))  # replaces a body that is equal, or truncated
            self._write(entry)
        return entry

    def renew(self, entry: Entry, headers: Iterable[tuple[str, str]], requested_at: float, received_at: float) -> Entry:
        """Store new header lines and times of an entry that the server has confirmed. HostError when that fails."""
        entry = replace(entry, headers=tuple(headers), requested_at=requested_at, received_at=received_at)
        with self._shared():
            self._write(entry)
        return entry

    def forget(self, method: str, url: str) -> None:
        """Remove all entries of `url`, because it has changed on the server. `clean` removes their bodies later."""
        for path in self._variants(method, url):
            _unlink(path)

    # --- cleanup -----------------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """All entries, the least recently used first."""
        entries = (_read(path) for path in self.root.glob("index/??/*.json"))
        return sorted((entry for entry in entries if entry), key=lambda entry: entry.used_at)

    def total(self) -> int:
        """The size of all files in bytes. Entries with the same body share it."""
        return sum(_size(path) for path in self.root.glob("*/**/*"))

    def remove(self, *entries: Entry) -> int:
        """Remove entries, and their bodies unless other entries have the same. Returns the number of freed bytes."""
        with self._exclusive():
            freed = sum(_unlink(self._index(entry)) for entry in entries)
            needed = {entry.digest for entry in self.entries()}
            return freed + sum(_unlink(self.body(digest)) for digest in {entry.digest for entry in entries} - needed)

    def clean(self) -> int:
        """Remove bodies without an entry, entries without a complete body, and files that dead processes left in tmp.

        Returns the number of freed bytes. Safe at any time, also while builds run.
        """
        if not self.root.is_dir():
            return 0
        with self._exclusive():
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
        """Remove the files that dead processes left in tmp, which nobody locks. Returns the number of freed bytes."""
        freed = 0
        for path in self.root.glob("tmp/*"):
            with suppress(OSError), path.open("rb") as file:
                if locks.lock(file, wait=False):
                    freed += _unlink(path)
        return freed

    # --- places ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _shared(self) -> Iterator[None]:
        with _host_errors(self.root), locks.shared(self.root, "store"):
            yield

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with _host_errors(self.root), locks.exclusive(self.root, "store"):
            yield

    def _write(self, entry: Entry) -> None:
        value = asdict(entry)
        del value["used_at"]
        with self.incoming() as file:
            file.write(json.dumps({"version": VERSION, **value}).encode())
            file.move(self._index(entry))

    def _variants(self, method: str, url: str) -> list[Path]:
        name = _sha256_hex(f"{method} {url}")
        return list((self.root / "index" / name[:2]).glob(f"{name}.*.json"))

    def _index(self, entry: Entry) -> Path:
        name, variant = _sha256_hex(f"{entry.method} {entry.url}"), _sha256_hex(json.dumps(dict(entry.vary), sort_keys=True))
        return self.root / "index" / name[:2] / f"{name}.{variant[:16]}.json"

    def body(self, digest: str) -> Path:
        """The path of a body."""
        name = digest.removeprefix("sha256:")
        return self.root / "bodies" / name[:2] / name


@contextmanager
def _host_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise host_error(error, path) from error


def _read(path: Path) -> Entry | None:
    """Read the entry in a file; None when it is missing, damaged, or of another version."""
    try:
        value = json.loads(path.read_bytes())
        if value.pop("version") != VERSION:
            return None
        headers = tuple((str(name), str(text)) for name, text in value.pop("headers"))
        return Entry(**value, headers=headers, used_at=path.stat().st_mtime)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _sha256_hex(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


def _unlink(path: Path) -> int:
    """Remove a file; returns its size in bytes, 0 when it could not be removed."""
    try:
        size = path.stat().st_size
        path.unlink()
    except OSError:
        return 0
    return size
