"""Wrapper for qemu-img (QEMU's disk image utility): one function per subcommand that bake needs. Source: the qemu-img(1) manual.

Disks have an explicit format, which is not guessed from content: a guest that writes a qcow2 header to its raw disk must not
make the host open files of the guest's choice. Only `info` and `as_disk` can guess, for files that a user named.
"""

from __future__ import annotations

import json
import re
import subprocess
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from baker.core.disk_space import free, full
from baker.core.errors import HostError
from baker.core.model import Disk, DiskFormat
from baker.core.process import CommandError, Result, need, run, spawn

Advance = Callable[[float], None]  # called with the fraction that is done, 0.0 to 1.0
PERCENT = re.compile(rb"\(\s*([0-9.]+)/100%\)")
# kinds of extents: reads as zeros; bytes at an offset of a file; compressed, or otherwise not stored as the plain bytes
ZERO, DATA, ENCODED = 0, 1, 2


@dataclass(frozen=True)
class DiskInfo:
    """What `qemu-img info` reports of one image file. Sizes in bytes."""

    path: Path
    format: str
    virtual_size: int
    backing: str | None  # as written in the image
    backing_path: Path | None  # the file that `backing` resolves to
    backing_format: str | None
    encrypted: bool = False
    data_file: str | None = None  # qcow2's external data file
    compression: str | None = None  # qcow2's: "zlib" or "zstd"
    extended_l2: bool = False  # qcow2's

    @property
    def plain(self) -> bool:
        """Whether `qemu-img map` reports offsets at which this file holds the disk's bytes unchanged."""
        return self.format in ("qcow2", "raw") and not self.encrypted and not self.data_file


@dataclass
class Extents:
    """The extent map of a disk: its runs of bytes, ascending and without gaps.

    Run i begins at `starts[i]`, has `lengths[i]` bytes and the kind `kinds[i]`. A DATA run lies at `offsets[i]` of the file
    `parts[depths[i]]`. Offsets and lengths are in bytes. Arrays keep it small: a fragmented terabyte has a million runs.
    """

    parts: tuple[DiskInfo, ...]
    starts: array[int] = field(default_factory=lambda: array("Q"))
    lengths: array[int] = field(default_factory=lambda: array("Q"))
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    kinds: bytearray = field(default_factory=bytearray)
    depths: bytearray = field(default_factory=bytearray)

    def add(self, start: int, length: int, kind: int, depth: int, offset: int) -> None:
        self.starts.append(start)
        self.lengths.append(length)
        self.kinds.append(kind)
        self.depths.append(depth)
        self.offsets.append(offset)

    def __iter__(self) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield (start, length, kind, depth, offset) of each run."""
        return zip(self.starts, self.lengths, self.kinds, self.depths, self.offsets, strict=True)

    def encoded_parts(self) -> set[int]:
        """The indices in `parts` of the files that hold ENCODED runs."""
        return {depth for kind, depth in zip(self.kinds, self.depths, strict=True) if kind == ENCODED}


def tool() -> str:
    """The path of qemu-img. HostError, naming its package, when it is not installed."""
    return need("qemu-img", package="qemu-utils")


def info(path: Path, format: DiskFormat | str) -> DiskInfo:  # noqa: A002 - qemu-img's own word
    """Describe the file at `path`. The format is never guessed by qemu-img: a guest or a stranger may have written the file."""
    result = _run([tool(), "info", "-U", "--output=json", "-f", format, _safe_name(path)], "reading the disk image", path)
    return _parse_info(json.loads(result.stdout))


def chain(disk: Disk) -> tuple[DiskInfo, ...]:
    """Describe the backing chain of `disk`: the disk itself first, the root of the chain last. HostError when a file is missing."""
    argv = [tool(), "info", "-U", "--output=json", "--backing-chain", "-f", disk.format, _safe_name(disk.path)]
    return tuple(_parse_info(part) for part in json.loads(_run(argv, "reading the disk image", disk.path).stdout))


def _parse_info(data: Mapping[str, Any]) -> DiskInfo:
    specific = data.get("format-specific", {}).get("data", {}) if data["format"] == "qcow2" else {}
    backing_path = data.get("full-backing-filename") or data.get("backing-filename")
    return DiskInfo(
        path=Path(data["filename"]),
        format=data["format"],
        virtual_size=data["virtual-size"],
        backing=data.get("backing-filename"),
        backing_path=Path(backing_path) if backing_path else None,
        backing_format=data.get("backing-filename-format"),
        encrypted=bool(data.get("encrypted")),
        data_file=specific.get("data-file"),
        compression=specific.get("compression-type"),
        extended_l2=bool(specific.get("extended-l2")),
    )


def as_disk(path: Path, format: DiskFormat | str) -> Disk:  # noqa: A002
    """The file at `path`, which has this format, as a Disk."""
    described = info(path, format)
    return Disk(path, cast(DiskFormat, described.format), described.virtual_size)


def create_overlay(backing: Disk, path: Path, *, size: int | None = None, reference: str | None = None) -> Disk:
    """Create a qcow2 at `path` that reads as `backing` until it is written to.

    `size` is in bytes; without it the overlay has the size of the backing disk. HostError when it is smaller than that.
    `reference` is the name of the backing disk that is stored in the overlay, relative to the overlay; it need not exist yet.
    Without it, the absolute path is stored.
    """
    named = ["-u", "-b", reference] if reference else ["-b", str(backing.path.absolute())]
    argv: list[str] = [tool(), "create", "-q", "-f", "qcow2", "-F", backing.format, *named, _safe_name(path)]
    if size is not None and size < backing.virtual_size:
        raise HostError(
            f"a disk of {size} bytes cannot hold {backing.path.name}, which has {backing.virtual_size} bytes", code="disk.too-small"
        )
    explicit = size if size is not None else backing.virtual_size if reference else None
    _run(argv + ([str(explicit)] if explicit is not None else []), "creating the overlay", path)
    return Disk(path, "qcow2", size or backing.virtual_size)


def convert(
    source: Disk,
    destination: Path,
    format: DiskFormat,  # noqa: A002
    *,
    compress: bool = False,
    options: Mapping[str, str] | None = None,
    backing: Disk | None = None,
    advance: Advance | None = None,
) -> Disk:
    """Write `source` (its whole backing chain, or what differs from `backing`) to `destination` in `format`.

    The output depends on the content only, since writes stay in order. HostError, naming the file system, when that is full.
    """
    argv = [tool(), "convert", "-p", "-f", source.format, "-O", format]
    argv += ["-c"] if compress else []
    argv += ["-B", str(backing.path.absolute()), "-F", backing.format] if backing else []
    argv += ["-o", ",".join(f"{name}={value}" for name, value in options.items())] if options else []
    _watch([*argv, _safe_name(source.path), _safe_name(destination)], "converting the disk", destination, advance)
    return Disk(destination, format, source.virtual_size)


def rebase(path: Path, backing: str, backing_format: DiskFormat = "qcow2") -> None:
    """Write another backing reference (relative to the image's own directory, or absolute) into a qcow2, without moving data.

    The caller makes sure that the new backing disk has the same content.
    """
    _run([tool(), "rebase", "-u", "-f", "qcow2", "-F", backing_format, "-b", backing, _safe_name(path)], "rebasing the disk", path)


def merge_chain(path: Path, base: Disk) -> None:
    """Merge the overlays between the qcow2 at `path` and `base` into that qcow2, so that `base` becomes its backing disk."""
    argv = [tool(), "rebase", "-t", "unsafe", "-f", "qcow2", "-F", base.format, "-b", str(base.path.absolute()), _safe_name(path)]
    _run(argv, "merging the overlays", path)


def map_extents(disk: Disk) -> Extents:
    """The extent map of `disk` through its whole backing chain. Neighbouring runs are merged. HostError when qemu-img fails."""
    parts = chain(disk)
    extents = Extents(parts)
    with spawn([tool(), "map", "-U", "--output=json", "-f", disk.format, _safe_name(disk.path)]) as child:
        assert child.stdout is not None and child.stderr is not None
        pending: list[int] | None = None
        for raw in child.stdout:
            line = raw.strip().lstrip(b"[").rstrip(b"],")
            if not line:
                continue
            extent = _parse_extent(json.loads(line), parts)
            if pending and _continues(pending, extent):
                pending[1] += extent[1]
                continue
            if pending:
                extents.add(*pending)
            pending = extent
        if pending:
            extents.add(*pending)
        message = child.stderr.read().decode("utf-8", "replace")
        if child.wait() != 0:
            raise HostError(f"qemu-img cannot map the disk {disk.path}: {message.strip()}", code="disk.qemu-img-failed")
    return extents


def _parse_extent(line: Mapping[str, Any], parts: Sequence[DiskInfo]) -> list[int]:
    """[start, length, kind, depth, offset] from one object of the output of `qemu-img map`."""
    depth, offset = line["depth"], line.get("offset")
    if line["zero"] or not line["data"]:
        return [line["start"], line["length"], ZERO, 0, 0]
    if offset is None or line.get("compressed") or not parts[depth].plain:
        return [line["start"], line["length"], ENCODED, depth, 0]
    return [line["start"], line["length"], DATA, depth, offset]


def _continues(left: list[int], right: list[int]) -> bool:
    """Whether `right`, the run after `left`, can be merged into it."""
    same = left[2] == right[2] and left[3] == right[3]
    return same and (left[2] != DATA or left[4] + left[1] == right[4])


def _safe_name(path: Path) -> str:
    """A path that qemu-img does not read as an option, a protocol ("nbd:...") or a JSON description."""
    return str(path.absolute())


def _run(argv: Sequence[str], what: str, path: Path) -> Result:
    try:
        return run(argv, what=what)
    except CommandError as error:
        raise _failure(error.result.tail, what, path) from error


def _watch(argv: Sequence[str], what: str, path: Path, advance: Advance | None) -> None:
    """Run a subcommand with -p, which prints its progress on stdout as "(12.34/100%)" and a carriage return."""
    tail = b""
    with spawn(argv, stderr=subprocess.STDOUT) as child:
        assert child.stdout is not None
        while chunk := child.stdout.read1(4096):  # type: ignore[attr-defined]
            tail = (tail + chunk)[-4096:]
            percentages = PERCENT.findall(chunk)
            if percentages and advance:
                advance(min(float(percentages[-1]) / 100, 1.0))
        if child.wait() != 0:
            raise _failure(PERCENT.sub(b"", tail).decode("utf-8", "replace"), what, path)


def _failure(text: str, what: str, path: Path) -> HostError:
    """The error for a failed qemu-img that printed `text`, which is most often about a full file system at `path`."""
    text = text.strip()
    if "No space left on device" in text or "File too large" in text or "Disk quota exceeded" in text or free(path) == 0:
        return full(path)
    return HostError(f"{what} failed: {text.removeprefix('qemu-img: ')}", code="disk.qemu-img-failed")
