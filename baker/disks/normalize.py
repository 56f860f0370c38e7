"""From a captured disk to the one disk that its content stands for: rules, then every ext4 file system laid out again in place.

Partition table, boot areas, EFI system partition, file system identifiers and features stay as they are. The new disk is a delta on the
same backing disk as the captured one, as small as what the build changed. It is read back and compared entry by entry before
anybody uses it. What cannot be carried over makes this refuse, with the reason.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from baker.core.errors import BuildError
from baker.core.model import Disk
from baker.disks import normalize_rules
from baker.disks.ext4.encode import kept_flags
from baker.disks.ext4.geometry import Geometry
from baker.disks.ext4.layout import Before, Copy, FileNode, Layout, lay_out, walk
from baker.disks.ext4.reader import Ext4, Inode, UnsupportedFilesystem
from baker.disks.ext4.tree import Tree
from baker.disks.qcow2_writer import CLUSTER, write_overlay
from baker.disks.qemuimg import ZERO
from baker.disks.raw import RawReader, open_raw
from baker.disks.rootfs import root_of, whole

VERSION = 1  # of the layout: part of every reproducible image's record; raised when equal trees would give other disks


@dataclass(frozen=True)
class Normalized:
    """A disk that depends on its content only, and how it came to be."""

    disk: Disk
    epoch: int
    version: int = VERSION
    rules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # rule -> paths that it changed
    files: int = 0
    kept: int = 0  # regular files that are where the backing disk has them


@dataclass(frozen=True)
class _Part:
    """One file system: where it is mounted, what it is, what is to be in it."""

    mount: str
    tree: Tree
    nodes: tuple[FileNode, ...]
    layout: Layout
    geometry: Geometry

    @property
    def end(self) -> int:
        return self.tree.fs.start + self.geometry.blocks * self.geometry.block_size


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes of the new disk: `fetch(offset in it, length)` gives them; None for zeros."""

    start: int
    length: int
    fetch: Callable[[int, int], bytes] | None


def normalize(
    captured: Disk, backing: Disk | None, destination: Path, *, epoch: int, scratch: Path | None = None, fresh: bool = False
) -> Normalized:
    """Write the disk that `captured`, a delta on `backing`, stands for to `destination`, a qcow2 delta on `backing`.

    `epoch`: seconds since 1970; no file is newer. `fresh`: nothing stays where `backing` has it, so that the layout depends on the files
    alone. UnsupportedFilesystem when something would be lost; BuildError when what was written is not what was to be written.
    """
    with ExitStack() as stack:
        reader = stack.enter_context(open_raw(captured, scratch=scratch))
        below = stack.enter_context(open_raw(backing, scratch=scratch)) if backing else None
        stack.enter_context(whole())
        root = root_of(reader)
        if root.needs_recovery:
            raise UnsupportedFilesystem("the file system was not unmounted: its last changes are in its journal only")
        changes: dict[str, tuple[str, ...]] = {}
        parts = []
        for mount, tree in {"": root.tree, **root.mounts}.items():
            part, ruled = _lay_part(mount, tree, reader, below, epoch=epoch, fresh=fresh)
            parts.append(part)
            changes = {title: (*changes.get(title, ()), *paths) for title, paths in ruled.items()}
        pieces = sorted(_pieces(parts, reader, below), key=lambda piece: piece.start)
        disk = write_overlay(_clusters(pieces, below, reader.size), destination, size=reader.size, backing=backing)
        check(disk, parts, scratch)
        return Normalized(
            disk, epoch, rules={title: paths for title, paths in changes.items() if paths},
            files=sum(len(part.nodes) for part in parts), kept=sum(part.layout.kept for part in parts),
        )  # fmt: skip


def _lay_part(
    mount: str, tree: Tree, reader: RawReader, below: RawReader | None, *, epoch: int, fresh: bool
) -> tuple[_Part, Mapping[str, tuple[str, ...]]]:
    """One file system with its new layout, and the paths that each rule changed."""
    geometry = Geometry(tree.fs)
    before = _before(tree, reader, below)
    known = {f"{mount}{path}": before.tree.fs.inode(number).mtime for path, number in before.paths.items()} if before else {}
    applied = normalize_rules.apply({f"{mount}{path}": node for path, node in nodes_of(mount, tree)}, _reading(tree), epoch, known)
    laid = tuple(applied.nodes.values())
    return _Part(mount, tree, laid, lay_out(geometry, laid, tree, None if fresh else before, epoch=epoch), geometry), applied.changes


# --- the tree --------------------------------------------------------------------------------------------------------


def nodes_of(mount: str, tree: Tree) -> Iterator[tuple[str, FileNode]]:
    """(path in the file system, file) of everything in it; `mount` is for messages."""
    for path, number in walk(tree):
        inode = tree.fs.inode(number)
        yield (
            path,
            FileNode(
                path,
                inode.mode,
                inode.uid,
                inode.gid,
                inode.mtime,
                kept_flags(inode.flags, f"{mount}{path}"),
                tuple(tree.stored_xattrs(inode)),
                tree.target(inode).encode("utf-8", "surrogateescape") if inode.is_link else b"",
                inode.device,
                inode if inode.is_file else None,
                None,
                number if inode.links > 1 and not inode.is_dir else 0,
            ),
        )


def _reading(tree: Tree) -> normalize_rules.Read:
    """How a rule gets a file's bytes."""

    def read(node: FileNode) -> bytes:
        if node.content is not None:
            return node.content
        return b"".join(tree.data(node.source)) if node.source is not None else b""

    return read


def _before(tree: Tree, reader: RawReader, below: RawReader | None) -> Before | None:
    """The same file system on the backing disk, if it was there."""
    if below is None:
        return None
    try:
        old = Tree(Ext4(below, tree.fs.start))
    except UnsupportedFilesystem:
        return None
    if (old.fs.uuid, old.fs.block_size) != (tree.fs.uuid, tree.fs.block_size):
        return None
    return Before(old, _comparing(tree, old, reader))


def _comparing(tree: Tree, old: Tree, reader: RawReader) -> Callable[[Inode, Inode], bool]:
    """Whether two inodes of equal size have equal bytes: nothing is read where the overlay has none of them."""
    size = tree.fs.block_size

    def same(new: Inode, before: Inode) -> bool:
        runs = list(tree.fs.runs(new))
        if runs == list(old.fs.runs(before)) and all(
            place is not None and reader.inherited(tree.fs.start + place * size, count * size) for _, place, count in runs
        ):
            return True
        return _equal(tree.data(new), old.data(before))

    return same


def _equal(left: Iterable[bytes], right: Iterable[bytes]) -> bool:
    """Whether two streams have the same bytes, however they are cut."""
    one, other = iter(left), iter(right)
    a = b = b""
    while True:
        a = a or next(one, b"")
        b = b or next(other, b"")
        count = min(len(a), len(b))
        if not count:
            return not a and not b
        if a[:count] != b[:count]:
            return False
        a, b = a[count:], b[count:]


# --- the disk --------------------------------------------------------------------------------------------------------


def _pieces(parts: Sequence[_Part], reader: RawReader, below: RawReader | None) -> Iterator[_Piece]:
    for part in parts:
        yield from _of_part(part, reader, below)
    position = 0
    for start, end in [*sorted((part.tree.fs.start, part.end) for part in parts), (reader.size, reader.size)]:
        yield from _outside(position, start, reader, below)
        position = end


def _outside(start: int, end: int, reader: RawReader, below: RawReader | None) -> Iterator[_Piece]:
    """What is not in a file system that is laid out again is the captured disk's, as it is."""
    for offset, length, kind, depth in reader.runs(start, end - start):
        if below is not None and kind != ZERO and depth:
            continue
        if kind == ZERO:
            yield from _zeros(offset, length, below)
        else:
            yield _Piece(offset, length, reader.pread)


def _of_part(part: _Part, reader: RawReader, below: RawReader | None) -> Iterator[_Piece]:
    size, start = part.geometry.block_size, part.tree.fs.start
    for block, data in part.layout.blocks.items():
        yield _Piece(start + block * size, size, _literal(data, start + block * size))
    for copy in part.layout.copies:
        if copy.origin is None:
            yield from _zeros(start + copy.place * size, copy.count * size, below)
        else:
            yield _Piece(start + copy.place * size, copy.count * size, _copied(copy, start, size, reader))
    for block, count in part.layout.zeros:
        yield from _zeros(start + block * size, count * size, below)


def _zeros(start: int, length: int, below: RawReader | None) -> Iterator[_Piece]:
    """Zeros where the backing disk has something else."""
    if below is not None:
        yield from (_Piece(offset, count, None) for offset, count, kind, _ in below.runs(start, length) if kind != ZERO)


def _literal(data: bytes, start: int) -> Callable[[int, int], bytes]:
    return lambda offset, length: data[offset - start : offset - start + length]


def _copied(copy: Copy, start: int, size: int, reader: RawReader) -> Callable[[int, int], bytes]:
    assert copy.origin is not None
    shift, end = (copy.origin - copy.place) * size, start + copy.place * size + copy.size

    def fetch(offset: int, length: int) -> bytes:
        data = reader.pread(offset + shift, length)
        return data if offset + length <= end else data[: max(0, end - offset)].ljust(length, b"\0")

    return fetch


def _clusters(pieces: Sequence[_Piece], below: RawReader | None, size: int) -> Iterator[tuple[int, bytes]]:
    """The clusters of the new disk that are not those of the backing disk, in order. `pieces` are sorted and do not overlap."""
    number, base, cluster = -1, b"", bytearray()
    for piece in pieces:
        offset, end = piece.start, piece.start + piece.length
        while offset < end:
            if offset // CLUSTER != number:
                if number >= 0 and cluster != base:
                    yield number, bytes(cluster)
                number = offset // CLUSTER
                length = min(CLUSTER, size - number * CLUSTER)
                base = (below.pread(number * CLUSTER, length) if below else b"").ljust(length, b"\0")
                cluster = bytearray(base)
            count = min(end, (number + 1) * CLUSTER) - offset
            inside = offset - number * CLUSTER
            cluster[inside : inside + count] = piece.fetch(offset, count) if piece.fetch else bytes(count)
            offset += count
    if number >= 0 and cluster != base:
        yield number, bytes(cluster)


# --- the proof -------------------------------------------------------------------------------------------------------


def check(disk: Disk, parts: Sequence[_Part], scratch: Path | None) -> None:
    """Read the new disk and compare it with what was to be on it. BuildError naming the first file that is not."""
    with open_raw(disk, scratch=scratch) as reader, whole():
        for part in parts:
            tree = Tree(Ext4(reader, part.tree.fs.start))
            found = dict(nodes_of(part.mount, tree))
            wanted = {node.path: node for node in part.nodes}
            for path in sorted(found.keys() ^ wanted.keys()):
                raise _wrong(part, path, "it is missing" if path in wanted else "it is there")
            _check_links(part, found, wanted)
            for path, node in wanted.items():
                _check_node(part, tree, path, node, found[path])


def _check_node(part: _Part, tree: Tree, path: str, wanted: FileNode, found: FileNode) -> None:
    for name in ("mode", "uid", "gid", "mtime", "flags", "target", "device", "size"):
        if name == "size" and stat.S_ISDIR(wanted.mode):
            continue
        if getattr(wanted, name) != getattr(found, name):
            raise _wrong(part, path, f"its {name} is {getattr(found, name)!r}, not {getattr(wanted, name)!r}")
    if sorted(wanted.xattrs) != sorted(found.xattrs):
        raise _wrong(part, path, "its extended attributes differ")
    if found.source is not None:
        expected = [wanted.content] if wanted.content is not None else part.tree.data(wanted.source) if wanted.source else []
        if not _equal(expected, tree.data(found.source)):
            raise _wrong(part, path, "its content differs")


def _check_links(part: _Part, found: Mapping[str, FileNode], wanted: Mapping[str, FileNode]) -> None:
    def groups(nodes: Mapping[str, FileNode]) -> set[frozenset[str]]:
        names: dict[int, set[str]] = {}
        for path, node in nodes.items():
            if node.linked:
                names.setdefault(node.linked, set()).add(path)
        return {frozenset(paths) for paths in names.values() if len(paths) > 1}

    for paths in groups(found) ^ groups(wanted):
        raise _wrong(part, min(paths), "other names are links to the same file")


def _wrong(part: _Part, path: str, what: str) -> BuildError:
    return BuildError(f"the new layout of the disk is not what it should be: {part.mount}{path}: {what}", hint="this is a bug in bake")
