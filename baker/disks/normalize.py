"""Normalization of a captured disk: rules change its files, and every ext4 file system gets a layout that depends on them only.

Partition table, boot areas, EFI system partition, identifiers and features of file systems stay as they are. The new disk is a
delta to the same backing disk as the captured one, about as large as what the build changed. It is read back and compared file by
file before anything uses it. When something cannot be carried over, normalization fails and names the reason.
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
from baker.disks.ext4.encode import preserved_flags
from baker.disks.ext4.geometry import Geometry
from baker.disks.ext4.layout import BackingFilesystem, Copy, FileNode, Layout, compute_layout, walk
from baker.disks.ext4.reader import Ext4, Inode, NotUnmounted, UnsupportedFilesystem
from baker.disks.ext4.tree import Tree
from baker.disks.qcow2_writer import CLUSTER, write_overlay
from baker.disks.qemuimg import ZERO
from baker.disks.raw import RawReader, open_raw
from baker.disks.rootfs import damage_as_error, mounted_root

VERSION = 1  # of the layout, recorded with every reproducible image; goes up when equal files would give a different disk


@dataclass(frozen=True)
class Normalized:
    """A normalized disk, and what normalization did. `epoch` in seconds since 1970."""

    disk: Disk
    epoch: int
    version: int = VERSION
    rules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # paths that each rule changed, by the rule's title
    files: int = 0
    files_in_place: int = 0  # regular files whose blocks are those of the backing disk


@dataclass(frozen=True)
class _Filesystem:
    """One file system: its mount point, the captured content, its new files, and their layout."""

    mount: str  # "" for the root
    tree: Tree
    nodes: tuple[FileNode, ...]
    layout: Layout
    geometry: Geometry

    @property
    def end(self) -> int:
        """The offset on the disk after the file system, in bytes."""
        return self.tree.fs.start + self.geometry.blocks * self.geometry.block_size


@dataclass(frozen=True, slots=True)
class _Segment:
    """A range of the new disk, in bytes. `fetch(offset on the disk, length)` returns its content; None stands for zeros."""

    start: int
    length: int
    fetch: Callable[[int, int], bytes] | None


def normalize(captured: Disk, backing: Disk | None, destination: Path, *, epoch: int, scratch: Path | None = None) -> Normalized:
    """Normalize `captured`, a delta to `backing`, and write the result to `destination`, a qcow2 delta to `backing`.

    `epoch`, in seconds since 1970, is the time that no file is newer than, unless it had its time on `backing` already.
    UnsupportedFilesystem when the disk cannot be normalized; BuildError when the new disk lacks content that it should have.
    """
    with ExitStack() as stack:
        reader = stack.enter_context(open_raw(captured, scratch=scratch))
        base = stack.enter_context(open_raw(backing, scratch=scratch)) if backing else None
        stack.enter_context(damage_as_error())
        root = mounted_root(reader)
        if root.needs_recovery:
            raise NotUnmounted()
        changes: dict[str, tuple[str, ...]] = {}
        filesystems = []
        for mount, tree in {"": root.tree, **root.mounts}.items():
            normalized, changed = _normalize_filesystem(mount, tree, reader, base, epoch=epoch)
            filesystems.append(normalized)
            changes = {title: (*changes.get(title, ()), *paths) for title, paths in changed.items()}
        segments = sorted(_segments(filesystems, reader, base), key=lambda segment: segment.start)
        disk = write_overlay(_clusters(segments, base, reader.size), destination, size=reader.size, backing=backing)
        _check(disk, filesystems, scratch)
        return Normalized(
            disk, epoch, rules={title: paths for title, paths in changes.items() if paths},
            files=sum(len(each.nodes) for each in filesystems),
            files_in_place=sum(each.layout.files_in_place for each in filesystems),
        )  # fmt: skip


def _normalize_filesystem(
    mount: str, tree: Tree, reader: RawReader, base: RawReader | None, *, epoch: int
) -> tuple[_Filesystem, Mapping[str, tuple[str, ...]]]:
    """Apply the rules to one file system and compute its layout; also returns the paths that each rule changed."""
    geometry = Geometry(tree.fs)
    backing = _backing_filesystem(tree, reader, base)
    base_mtimes = {f"{mount}{path}": backing.tree.fs.inode(number).mtime for path, number in backing.paths.items()} if backing else {}
    captured = {f"{mount}{path}": node for path, node in _file_nodes(mount, tree)}
    applied = normalize_rules.apply(captured, _content_of(tree), epoch, base_mtimes)
    nodes = tuple(applied.nodes.values())
    layout = compute_layout(geometry, nodes, tree, backing, epoch=epoch)
    return _Filesystem(mount, tree, nodes, layout, geometry), applied.changes


# --- files -----------------------------------------------------------------------------------------------------------


def _file_nodes(mount: str, tree: Tree) -> Iterator[tuple[str, FileNode]]:
    """Yield (path in the file system, file) of every file. `mount` appears in messages."""
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
                preserved_flags(inode.flags, f"{mount}{path}"),
                tuple(tree.stored_xattrs(inode)),
                tree.target(inode).encode("utf-8", "surrogateescape") if inode.is_link else b"",
                inode.device,
                inode if inode.is_file else None,
                None,
                number if inode.links > 1 and not inode.is_dir else 0,
            ),
        )


def _content_of(tree: Tree) -> normalize_rules.Read:
    """A function that reads the content of a file, for the rules."""

    def read(node: FileNode) -> bytes:
        if node.content is not None:
            return node.content
        return b"".join(tree.data(node.source)) if node.source is not None else b""

    return read


def _backing_filesystem(tree: Tree, reader: RawReader, base: RawReader | None) -> BackingFilesystem | None:
    """The same file system on the backing disk; None when there is none with the same place, UUID and block size."""
    if base is None:
        return None
    try:
        old = Tree(Ext4(base, tree.fs.start))
    except UnsupportedFilesystem:
        return None
    if (old.fs.uuid, old.fs.block_size) != (tree.fs.uuid, tree.fs.block_size):
        return None
    return BackingFilesystem(old, _content_comparison(tree, old, reader))


def _content_comparison(tree: Tree, old: Tree, reader: RawReader) -> Callable[[Inode, Inode], bool]:
    """A function that tells whether two inodes of equal size have equal content.

    It reads nothing when both have the same blocks and the overlay has none of them.
    """
    size = tree.fs.block_size

    def same_content(new_inode: Inode, old_inode: Inode) -> bool:
        runs = list(tree.fs.runs(new_inode))
        if runs == list(old.fs.runs(old_inode)) and all(
            place is not None and reader.inherited(tree.fs.start + place * size, count * size) for _, place, count in runs
        ):
            return True
        return _equal(tree.data(new_inode), old.data(old_inode))

    return same_content


def _equal(left: Iterable[bytes], right: Iterable[bytes]) -> bool:
    """Whether two streams have the same bytes, wherever their pieces end."""
    left_pieces, right_pieces = iter(left), iter(right)
    a = b = b""
    while True:
        a = a or next(left_pieces, b"")
        b = b or next(right_pieces, b"")
        count = min(len(a), len(b))
        if not count:
            return not a and not b
        if a[:count] != b[:count]:
            return False
        a, b = a[count:], b[count:]


# --- the disk --------------------------------------------------------------------------------------------------------


def _segments(filesystems: Sequence[_Filesystem], reader: RawReader, base: RawReader | None) -> Iterator[_Segment]:
    """Yield the segments of the new disk that may differ from the backing disk, unsorted."""
    for each in filesystems:
        yield from _inside(each, reader, base)
    position = 0
    for start, end in [*sorted((each.tree.fs.start, each.end) for each in filesystems), (reader.size, reader.size)]:
        yield from _outside(position, start, reader, base)
        position = end


def _outside(start: int, end: int, reader: RawReader, base: RawReader | None) -> Iterator[_Segment]:
    """Yield the segments in start..end, which is outside of normalized file systems and stays as captured."""
    for offset, length, kind, depth in reader.runs(start, end - start):
        if base is not None and kind != ZERO and depth:
            continue
        if kind == ZERO:
            yield from _zeros(offset, length, base)
        else:
            yield _Segment(offset, length, reader.pread)


def _inside(filesystem: _Filesystem, reader: RawReader, base: RawReader | None) -> Iterator[_Segment]:
    """Yield the segments of a normalized file system."""
    size, start = filesystem.geometry.block_size, filesystem.tree.fs.start
    for block, data in filesystem.layout.blocks.items():
        yield _Segment(start + block * size, size, _from_bytes(data, start + block * size))
    for copy in filesystem.layout.copies:
        if copy.origin is None:
            yield from _zeros(start + copy.place * size, copy.count * size, base)
        else:
            yield _Segment(start + copy.place * size, copy.count * size, _from_copy(copy, start, size, reader))
    for block, count in filesystem.layout.zeros:
        yield from _zeros(start + block * size, count * size, base)


def _zeros(start: int, length: int, base: RawReader | None) -> Iterator[_Segment]:
    """Yield segments of zeros where the backing disk has something else."""
    if base is not None:
        yield from (_Segment(offset, count, None) for offset, count, kind, _ in base.runs(start, length) if kind != ZERO)


def _from_bytes(data: bytes, start: int) -> Callable[[int, int], bytes]:
    """The `fetch` of a segment that begins at `start` and holds `data`."""
    return lambda offset, length: data[offset - start : offset - start + length]


def _from_copy(copy: Copy, start: int, size: int, reader: RawReader) -> Callable[[int, int], bytes]:
    """The `fetch` of a segment that copies blocks of `size` bytes from the captured disk, in a file system that begins at `start`."""
    assert copy.origin is not None
    shift, end = (copy.origin - copy.place) * size, start + copy.place * size + copy.size

    def fetch(offset: int, length: int) -> bytes:
        data = reader.pread(offset + shift, length)
        return data if offset + length <= end else data[: max(0, end - offset)].ljust(length, b"\0")

    return fetch


def _clusters(segments: Sequence[_Segment], base: RawReader | None, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield (number, content) of the clusters that differ from the backing disk, ascending. `segments` are sorted and do not overlap."""
    number, base_cluster, cluster = -1, b"", bytearray()
    for segment in segments:
        offset, end = segment.start, segment.start + segment.length
        while offset < end:
            if offset // CLUSTER != number:
                if number >= 0 and cluster != base_cluster:
                    yield number, bytes(cluster)
                number = offset // CLUSTER
                length = min(CLUSTER, size - number * CLUSTER)
                base_cluster = (base.pread(number * CLUSTER, length) if base else b"").ljust(length, b"\0")
                cluster = bytearray(base_cluster)
            count = min(end, (number + 1) * CLUSTER) - offset
            inside = offset - number * CLUSTER
            cluster[inside : inside + count] = segment.fetch(offset, count) if segment.fetch else bytes(count)
            offset += count
    if number >= 0 and cluster != base_cluster:
        yield number, bytes(cluster)


# --- check of the new disk -------------------------------------------------------------------------------------------


def _check(disk: Disk, filesystems: Sequence[_Filesystem], scratch: Path | None) -> None:
    """Read the new disk and compare it with what should be on it. BuildError, naming the first file that differs."""
    with open_raw(disk, scratch=scratch) as reader, damage_as_error():
        for each in filesystems:
            tree = Tree(Ext4(reader, each.tree.fs.start))
            actual = dict(_file_nodes(each.mount, tree))
            expected = {node.path: node for node in each.nodes}
            for path in sorted(actual.keys() ^ expected.keys()):
                raise _mismatch(each, path, "it is missing" if path in expected else "it should not exist")
            _check_links(each, actual, expected)
            for path, node in expected.items():
                _check_node(each, tree, path, node, actual[path])


def _check_node(filesystem: _Filesystem, tree: Tree, path: str, expected: FileNode, actual: FileNode) -> None:
    for name in ("mode", "uid", "gid", "mtime", "flags", "target", "device", "size"):
        if name == "size" and stat.S_ISDIR(expected.mode):
            continue
        if getattr(expected, name) != getattr(actual, name):
            raise _mismatch(filesystem, path, f"its {name} is {getattr(actual, name)!r}, not {getattr(expected, name)!r}")
    if sorted(expected.xattrs) != sorted(actual.xattrs):
        raise _mismatch(filesystem, path, "its extended attributes differ")
    if actual.source is not None:
        content = [expected.content] if expected.content is not None else filesystem.tree.data(expected.source) if expected.source else []
        if not _equal(content, tree.data(actual.source)):
            raise _mismatch(filesystem, path, "its content differs")


def _check_links(filesystem: _Filesystem, actual: Mapping[str, FileNode], expected: Mapping[str, FileNode]) -> None:
    def groups(nodes: Mapping[str, FileNode]) -> set[frozenset[str]]:
        """The sets of paths that are names of one file."""
        names: dict[int, set[str]] = {}
        for path, node in nodes.items():
            if node.link_group:
                names.setdefault(node.link_group, set()).add(path)
        return {frozenset(paths) for paths in names.values() if len(paths) > 1}

    for paths in groups(actual) ^ groups(expected):
        raise _mismatch(filesystem, min(paths), "other paths are hard links to the same file")


def _mismatch(filesystem: _Filesystem, path: str, what: str) -> BuildError:
    return BuildError(
        f"the normalized disk differs from the captured files at {filesystem.mount}{path}: {what}",
        hint="this is a bug in bake: please report it, and build without `reproducible` until it is fixed",
        code="disk.normalize-mismatch",
    )
