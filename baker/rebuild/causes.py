"""Finds why a rebuilt file differs, by comparing both versions, and what would prevent the difference."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from baker.artifacts.trees import Difference

Read = Callable[[str], bytes | None]
DATES = re.compile(
    rb"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?"
    rb"|\d\d:\d\d:\d\d(?:\.\d+)?|\b1[0-9]{9}(?:\.\d+|\d{3}|\d{9})?\b"
    rb"|(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? +(?:\d{1,2} )?(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*(?: +\d{1,2})?"
    rb"|\b\d{1,2} (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]* \d{4}\b"
)
IDENTIFIERS = re.compile(rb"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}|\b[0-9a-fA-F]{16,128}\b|[A-Za-z0-9+/]{40,}={0,2}")
RANDOM_NAME = re.compile(r"[0-9a-fA-F]{6,}|[A-Za-z0-9_]{6,}$|\d{3,}")
KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----|-----BEGIN CERTIFICATE-----|ssh-(?:rsa|ed25519) ")
NUMBER = re.compile(rb"\d+(?:\.\d+)?")
TAR_MAGIC, PYC = 257, (".pyc", ".pyo")
LARGEST = 64 << 20  # bytes of the largest file that is examined, packed or unpacked


@dataclass(frozen=True)
class Cause:
    """A cause of differences. `remedy`: what to change in the template."""

    name: str
    what: str
    remedy: str


BYTECODE = Cause(
    "bytecode",
    "Python bytecode with the time of its source, or in a different order",
    "compile with SOURCE_DATE_EPOCH set (every step has it), or remove __pycache__ in the last step",
)
GZIP_TIME = Cause("gzip-time", "a gzip file that contains the time of its creation", "use gzip -n")
ARCHIVE_TIME = Cause(
    "archive-time",
    "an archive whose members have the times of the build",
    'use tar --mtime="@$SOURCE_DATE_EPOCH" --clamp-mtime, or touch the files before zip -X',
)
ARCHIVE_ORDER = Cause(
    "archive-order", "an archive with the same members in a different order", "use tar --sort=name, or pass a sorted list to zip"
)
TIMESTAMP = Cause(
    "timestamp", "a date or time of the build in a file's text", 'write date -u -d "@$SOURCE_DATE_EPOCH" instead of the current time'
)
LINE_ORDER = Cause("line-order", "the same lines in a different order", "sort the lines with LC_ALL=C before they are written")
RANDOM_NAMES = Cause(
    "random-name",
    "the same content under a name that is random in each build",
    "name the file by its content or its number, or remove temporary files in the same step",
)
RANDOM_KEY = Cause(
    "random-key",
    "a key or certificate that each build generates",
    "generate it at the first boot: all machines of an image share a private key in it",
)
RANDOM_ID = Cause("random-id", "an identifier that is random in each build", "take it from a variable, or generate it at the first boot")
LOG = Cause(
    "log",
    "a log with times and durations of the build",
    "remove it in the last step, or write it below /var/log, which sealing empties",
)
TIME_ONLY = Cause(
    "file-time",
    "only the time of the file differs",
    "reproducible: true clamps the times of files that a build changes; touch -d @$SOURCE_DATE_EPOCH sets others",
)
OTHER = Cause("other", "another difference", "bake diff shows it")
CAUSES = (
    BYTECODE,
    GZIP_TIME,
    ARCHIVE_TIME,
    ARCHIVE_ORDER,
    TIMESTAMP,
    LINE_ORDER,
    RANDOM_NAMES,
    RANDOM_KEY,
    RANDOM_ID,
    LOG,
    TIME_ONLY,
    OTHER,
)


@dataclass(frozen=True)
class Group:
    """All differences with one cause."""

    cause: Cause
    differences: tuple[Difference, ...] = field(default_factory=tuple)


def explain(differences: Sequence[Difference], old: Read, new: Read) -> list[Group]:
    """Group the differences by cause, in the order of CAUSES. `old` and `new` return the bytes of a file, None if it does not exist."""
    renamed = _renamed(differences)
    found: dict[Cause, list[Difference]] = {}
    for difference in differences:
        cause = RANDOM_NAMES if difference.path in renamed else _cause(difference, old, new)
        found.setdefault(cause, []).append(difference)
    return [Group(cause, tuple(found[cause])) for cause in CAUSES if cause in found]


def _renamed(differences: Iterable[Difference]) -> set[str]:
    """Paths that exist under another name in the same directory, with the same content."""
    sides: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for difference in differences:
        entry = difference.before or difference.after
        if difference.what in (("added",), ("removed",)) and entry and RANDOM_NAME.search(difference.path.rpartition("/")[2]):
            key = (difference.path.rpartition("/")[0], entry.sha256 or entry.target, oct(entry.mode))
            sides.setdefault(key, {}).setdefault(difference.what[0], []).append(difference.path)
    return {path for both in sides.values() if len(both) == 2 for paths in both.values() for path in paths}


def _cause(difference: Difference, old: Read, new: Read) -> Cause:
    path = difference.path
    if difference.what == ("time",):
        return TIME_ONLY
    if path.startswith("/var/log/"):
        return LOG
    if path.endswith(PYC):
        return BYTECODE
    if "content" not in difference.what:
        return OTHER
    if max(entry.size for entry in (difference.before, difference.after) if entry) > LARGEST:
        return OTHER
    before, after = old(path), new(path)
    if before is None or after is None:
        return OTHER
    if path.endswith(".log") and _without_times(before) == _without_times(after):
        return LOG
    return _of_bytes(before, after)


def _without_times(log: bytes) -> bytes:
    """A log's text without dates, times, durations and process ids."""
    return NUMBER.sub(b"0", DATES.sub(b"0", log))


def _of_bytes(before: bytes, after: bytes) -> Cause:
    if before[:2] == after[:2] == b"\x1f\x8b":
        return _of_gzip(before, after)
    archive = _of_archive(before, after)
    if archive:
        return archive
    if KEY.search(before[:4096]) and KEY.search(after[:4096]):
        return RANDOM_KEY
    if sorted(before.splitlines()) == sorted(after.splitlines()):
        return LINE_ORDER
    if DATES.sub(b"@", before) == DATES.sub(b"@", after):
        return TIMESTAMP
    if IDENTIFIERS.sub(b"@", before) == IDENTIFIERS.sub(b"@", after):
        return RANDOM_ID
    return OTHER


def _of_gzip(before: bytes, after: bytes) -> Cause:
    try:
        left, right = _unpacked(before), _unpacked(after)
    except (OSError, EOFError, zlib.error):
        return OTHER
    if max(len(left), len(right)) > LARGEST:
        return OTHER
    return GZIP_TIME if left == right else _of_bytes(left, right)


def _unpacked(data: bytes) -> bytes:
    """The content of a gzip file, but at most LARGEST + 1 bytes of it."""
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        return file.read(LARGEST + 1)


Member = tuple[str, bytes]


def _of_archive(before: bytes, after: bytes) -> Cause | None:
    """The cause of the difference between two archives of one kind; None if they are not archives, or differ otherwise."""
    for read in (_tar, _zip):
        left, right = read(before), read(after)
        if left is None or right is None:
            continue
        if left == right:
            return ARCHIVE_TIME
        return ARCHIVE_ORDER if sorted(left) == sorted(right) else None
    return None


def _tar(data: bytes) -> list[Member] | None:
    if data[TAR_MAGIC : TAR_MAGIC + 5] != b"ustar":
        return None
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            return [(member.name, _content(tar, member)) for member in tar]
    except (tarfile.TarError, OSError, EOFError):
        return None


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member) if member.isreg() else None
    return file.read() if file else member.linkname.encode("utf-8", "surrogateescape")


def _zip(data: bytes) -> list[Member] | None:
    if data[:4] != b"PK\x03\x04":
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            return [(info.filename, file.read(info)) for info in file.infolist()]
    except (zipfile.BadZipFile, OSError, RuntimeError, zlib.error):
        return None


def to_json(groups: Iterable[Group]) -> list[Mapping[str, object]]:
    """The groups as JSON values, for `--json` and for the record."""
    return [
        {
            "cause": group.cause.name,
            "what": group.cause.what,
            "remedy": group.cause.remedy,
            "paths": [{"path": each.path, "what": list(each.what)} for each in group.differences],
        }
        for group in groups
    ]
