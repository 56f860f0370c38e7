"""qemu-img (QEMU's disk image utility), one function per verb that bake needs.

Formats are always named and never guessed from content: a guest that writes a qcow2 header to its raw disk must not make
the host open files of the guest's choosing. Source: the qemu-img(1) manual.
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

Advance = Callable[[float], None]  # called with the part that is done, 0.0 to 1.0
PERCENT = re.compile(rb"\(\s*([0-9.]+)/100%\)")
ZERO, DATA, PACKED = 0, 1, 2  # kinds of extents: reads as zeros; bytes at an offset of a file; compressed, or not to be had otherwise


@dataclass(frozen=True)
class DiskInfo:
    """What qemu-img says of one image file. Sizes in bytes."""

    path: Path
    format: str
    virtual_size: int
    backing: str | None  # as written in the image
    backing_path: Path | None  # where that leads
    backing_format: str | None
    encrypted: bool = False
    data_file: str | None = None  # qcow2's external data file
    compression: str | None = None  # qcow2's: "zlib" or "zstd"
    extended_l2: bool = False  # qcow2's

    @property
    def plain(self) -> bool:
        """Whether the offsets that `qemu-img map` tells are those of the disk's own bytes in this file."""
        return self.format in ("qcow2", "raw") and not self.encrypted and not self.data_file


@dataclass
class Extents:
    """A disk's runs of bytes in order, without gaps: run i covers `starts[i]` and `lengths[i]` bytes, is of kind `kinds[i]` and, for
    DATA, lies at `offsets[i]` of the file `parts[depths[i]]`. Plain arrays: a fragmented terabyte has a million runs."""

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
        """(start, length, kind, depth, offset) of each run."""
        return zip(self.starts, self.lengths, self.kinds, self.depths, self.offsets, strict=True)

    def packed_in(self) -> set[int]:
        """The indices into `parts` of the files that hold PACKED runs."""
        return {depth for kind, depth in zip(self.kinds, self.depths, strict=True) if kind == PACKED}


def tool() -> str:
    return need("qemu-img", package="qemu-utils")


def info(path: Path, format: DiskFormat | str | None = None) -> DiskInfo:  # noqa: A002 - qemu-img's own word
    """What `path` is. Without `format` qemu-img guesses it: only for files that a person named and no guest wrote raw."""
    known = ["-f", format] if format else []
    result = _run([tool(), "info", "-U", "--output=json", *known, _name(path)], "reading the disk image", path)
    return _info(json.loads(result.stdout))


def chain(disk: Disk) -> tuple[DiskInfo, ...]:
    """What `disk` is made of: itself first, then what it is backed by, down to the root. HostError when a part is missing."""
    argv = [tool(), "info", "-U", "--output=json", "--backing-chain", "-f", disk.format, _name(disk.path)]
    return tuple(_info(part) for part in json.loads(_run(argv, "reading the disk image", disk.path).stdout))


def _info(data: Mapping[str, Any]) -> DiskInfo:
    specific = data.get("format-specific", {}).get("data", {}) if data["format"] == "qcow2" else {}
    where = data.get("full-backing-filename") or data.get("backing-filename")
    return DiskInfo(
        path=Path(data["filename"]),
        format=data["format"],
        virtual_size=data["virtual-size"],
        backing=data.get("backing-filename"),
        backing_path=Path(where) if where else None,
        backing_format=data.get("backing-filename-format"),
        encrypted=bool(data.get("encrypted")),
        data_file=specific.get("data-file"),
        compression=specific.get("compression-type"),
        extended_l2=bool(specific.get("extended-l2")),
    )


def as_disk(path: Path, format: DiskFormat | str | None = None) -> Disk:  # noqa: A002
    """The file at `path` as a Disk."""
    found = info(path, format)
    return Disk(path, cast(DiskFormat, found.format), found.virtual_size)


def create_overlay(backing: Disk, path: Path, *, size: int | None = None, reference: str | None = None) -> Disk:
    """A new qcow2 at `path` that reads as `backing` until it is written to. `size` in bytes: larger than the backing disk, or None.
    `reference` is what it names its backing disk (relative to itself, and not looked up now); left out, the absolute path."""
    named = ["-u", "-b", reference] if reference else ["-b", str(backing.path.absolute())]
    argv: list[str] = [tool(), "create", "-q", "-f", "qcow2", "-F", backing.format, *named, _name(path)]
    if size is not None and size < backing.virtual_size:
        raise HostError(f"a disk of {size} bytes cannot hold {backing.path.name}, which has {backing.virtual_size}")
    known = size if size is not None else backing.virtual_size if reference else None
    _run(argv + ([str(known)] if known is not None else []), "making the overlay", path)
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

    The output depends on the content only: no out-of-order writes. HostError naming the file system when it is full.
    """
    argv = [tool(), "convert", "-p", "-f", source.format, "-O", format]
    argv += ["-c"] if compress else []
    argv += ["-B", str(backing.path.absolute()), "-F", backing.format] if backing else []
    argv += ["-o", ",".join(f"{name}={value}" for name, value in options.items())] if options else []
    _watch([*argv, _name(source.path), _name(destination)], "converting the disk", destination, advance)
    return Disk(destination, format, source.virtual_size)


def rebase(path: Path, backing: str, backing_format: DiskFormat = "qcow2") -> None:
    """Write another backing reference (relative to the image's own directory, or absolute) into a qcow2. No data moves; whether
    the new backing disk has the same content is the caller's business."""
    _run([tool(), "rebase", "-u", "-f", "qcow2", "-F", backing_format, "-b", backing, _name(path)], "rebasing the disk", path)


def join(path: Path, base: Disk) -> None:
    """Take into the qcow2 at `path` whatever the overlays between it and `base` hold, so that `base` becomes what it is backed by."""
    argv = [tool(), "rebase", "-t", "unsafe", "-f", "qcow2", "-F", base.format, "-b", str(base.path.absolute()), _name(path)]
    _run(argv, "joining the overlays", path)


def map_extents(disk: Disk) -> Extents:
    """Where each byte of a qcow2 or raw `disk` lies, through its whole backing chain. Neighbouring runs are joined."""
    parts = chain(disk)
    extents = Extents(parts)
    with spawn([tool(), "map", "-U", "--output=json", "-f", disk.format, _name(disk.path)]) as child:
        assert child.stdout is not None and child.stderr is not None
        run_of: list[int] | None = None
        for raw in child.stdout:
            line = raw.strip().lstrip(b"[").rstrip(b"],")
            if not line:
                continue
            found = _run_of(json.loads(line), parts)
            if run_of and _follows(run_of, found):
                run_of[1] += found[1]
                continue
            if run_of:
                extents.add(*run_of)
            run_of = found
        if run_of:
            extents.add(*run_of)
        message = child.stderr.read().decode("utf-8", "replace")
        if child.wait() != 0:
            raise HostError(f"cannot map {disk.path}: {message.strip()}")
    return extents


def _run_of(line: Mapping[str, Any], parts: Sequence[DiskInfo]) -> list[int]:
    """[start, length, kind, depth, offset] of one object that `qemu-img map` printed."""
    depth, offset = line["depth"], line.get("offset")
    if line["zero"] or not line["data"]:
        return [line["start"], line["length"], ZERO, 0, 0]
    if offset is None or line.get("compressed") or not parts[depth].plain:
        return [line["start"], line["length"], PACKED, depth, 0]
    return [line["start"], line["length"], DATA, depth, offset]


def _follows(left: list[int], right: list[int]) -> bool:
    same = left[2] == right[2] and left[3] == right[3]
    return same and (left[2] != DATA or left[4] + left[1] == right[4])


def _name(path: Path) -> str:
    """A path that qemu-img does not take for an option, a protocol ("nbd:...") or a JSON description."""
    return str(path.absolute())


def _run(argv: Sequence[str], what: str, path: Path) -> Result:
    try:
        return run(argv, what=what)
    except CommandError as error:
        raise _failure(error.result.tail, what, path) from error


def _watch(argv: Sequence[str], what: str, path: Path, advance: Advance | None) -> None:
    """Run a verb with -p, which prints "(12.34/100%)" and a carriage return on stdout as it goes."""
    tail = b""
    with spawn(argv, stderr=subprocess.STDOUT) as child:
        assert child.stdout is not None
        while chunk := child.stdout.read1(4096):  # type: ignore[attr-defined]
            tail = (tail + chunk)[-4096:]
            found = PERCENT.findall(chunk)
            if found and advance:
                advance(min(float(found[-1]) / 100, 1.0))
        if child.wait() != 0:
            raise _failure(PERCENT.sub(b"", tail).decode("utf-8", "replace"), what, path)


def _failure(text: str, what: str, path: Path) -> HostError:
    text = text.strip()
    if "No space left on device" in text or "File too large" in text or "Disk quota exceeded" in text or free(path) == 0:
        return full(path)
    return HostError(f"{what} failed: {text.removeprefix('qemu-img: ')}")
