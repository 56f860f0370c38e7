"""Normalization of disks, checked with e2fsck, debugfs and the project's own reader."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from baker.core.model import Disk, FileEntry
from baker.disks import normalize_rules, qemuimg
from baker.disks.ext4.layout import FileNode
from baker.disks.ext4.reader import CannotNormalize, NotUnmounted, UnsupportedFilesystem
from baker.disks.extents import FreeBlocks, clipped, disjoint, first_blocks, gaps, merged, subtract
from baker.disks.manifest import file_manifest
from baker.disks.normalize import normalize
from baker.disks.raw import raw_digest
from tests.support.documents import normalize_rules_table

EPOCH = 1_700_000_000
UUID = "5b1a9b0e-1f0e-4f8e-9d0a-0123456789ab"
FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,"
    "extra_isize,metadata_csum"
)
PLAIN = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,sparse_super,large_file,extra_isize"
CHECKED = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,flex_bg,sparse_super,large_file,extra_isize,uninit_bg"


def sh(*argv: str | Path, **more: object) -> str:
    return subprocess.run([str(a) for a in argv], check=True, capture_output=True, text=True, **more).stdout  # type: ignore[call-overload, no-any-return]


def make(path: Path, tree: Path, *options: str, features: str = FEATURES, size: str = "96M") -> Disk:
    """A raw disk with one ext4 file system that holds what is in `tree`."""
    sh(
        "mke2fs",
        "-q",
        "-F",
        "-t",
        "ext4",
        "-O",
        features,
        "-I",
        "256",
        "-U",
        UUID,
        "-E",
        f"hash_seed={UUID}",
        *options,
        "-d",
        tree,
        path,
        size,
    )
    return Disk(path, "raw", path.stat().st_size)


def changed(disk: Disk, path: Path, *commands: str) -> Disk:
    """A copy of `disk` on which debugfs has run `commands`."""
    sh("cp", "--sparse=always", disk.path, path)
    sh("debugfs", "-w", "-f", "-", path, input="\n".join(commands) + "\n")
    return Disk(path, "raw", disk.virtual_size)


def clean(disk: Disk, directory: Path) -> Path:
    """The disk as a raw file in which e2fsck finds no error."""
    raw = qemuimg.convert(disk, directory / f"{disk.path.stem}.check.raw", "raw").path
    found = subprocess.run(["e2fsck", "-f", "-n", raw], check=False, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    return raw


def listing(disk: Disk) -> dict[str, FileEntry]:
    return {entry.path: entry for entry in file_manifest(disk)}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for name in ("etc", "usr/bin", "var/lib", "many", "empty"):
        (root / name).mkdir(parents=True)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (root / "usr/bin/tool").write_bytes(os.urandom(300_000))
    (root / "usr/bin/tool").chmod(0o4755)
    os.link(root / "usr/bin/tool", root / "usr/bin/same-tool")
    (root / "usr/bin/short").symlink_to("tool")
    (root / "usr/bin/long").symlink_to("/" + "x" * 200)
    for number in range(1500):
        (root / f"many/file-number-{number:05d}").write_text(str(number))
    with (root / "var/lib/sparse").open("wb") as file:
        for number in range(12):
            file.seek(number * 100_000)
            file.write(b"x" * 5000)
    os.mkfifo(root / "var/pipe")
    os.setxattr(root / "etc/hosts", "user.note", b"kept")
    os.setxattr(root / "usr/bin/tool", "user.large", b"v" * 500)
    return root


@pytest.fixture(scope="module")
def base(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Disk:
    return make(tmp_path_factory.mktemp("base") / "base.raw", tree)


@pytest.mark.parametrize("features", [FEATURES, PLAIN, CHECKED], ids=["metadata_csum", "plain", "uninit_bg"])
@pytest.mark.parametrize("block", ["1024", "4096"])
@pytest.mark.parametrize("from_scratch", [True, False], ids=["from scratch", "in place"])
def test_every_file_is_there_again_and_e2fsck_is_content(tmp_path: Path, tree: Path, features: str, block: str, from_scratch: bool) -> None:
    disk = make(tmp_path / "disk.raw", tree, "-b", block, features=features)
    done = normalize(disk, None if from_scratch else disk, tmp_path / "new.qcow2", epoch=EPOCH)
    clean(done.disk, tmp_path)
    before, found = listing(disk), listing(done.disk)
    assert found == ({path: replace(entry, mtime=min(entry.mtime, EPOCH)) for path, entry in before.items()} if from_scratch else before)
    assert done.files == len(found)


def test_debugfs_reads_what_we_read(tmp_path: Path, base: Disk, tree: Path) -> None:
    raw = clean(normalize(base, None, tmp_path / "new.qcow2", epoch=EPOCH).disk, tmp_path)
    sh("debugfs", "-R", f"dump /usr/bin/tool {tmp_path}/tool", raw)
    assert (tmp_path / "tool").read_bytes() == (tree / "usr/bin/tool").read_bytes()
    assert "Links: 2" in sh("debugfs", "-R", "stat /usr/bin/same-tool", raw)
    assert 'user.note (4) = "kept"' in sh("debugfs", "-R", "stat /etc/hosts", raw)
    assert "Links: 2" in sh("debugfs", "-R", "stat /empty", raw)


def test_two_ways_to_the_same_files_are_one_disk(tmp_path: Path, base: Disk) -> None:
    (tmp_path / "a").write_bytes(b"a" * 70_000)
    (tmp_path / "b").write_bytes(b"b" * 9_000)
    one = changed(
        base, tmp_path / "one.raw", f"write {tmp_path}/a /etc/a", f"write {tmp_path}/b /etc/b", "rm /many/file-number-00007", "mkdir /new"
    )
    other = changed(
        base, tmp_path / "other.raw", "mkdir /new", f"write {tmp_path}/b /waste", "rm /many/file-number-00007",
        f"write {tmp_path}/b /etc/b",
        "rm /waste", f"write {tmp_path}/a /etc/a",
    )  # fmt: skip
    assert raw_digest(one) != raw_digest(other)
    done = [normalize(each, base, tmp_path / f"{each.path.stem}.qcow2", epoch=EPOCH) for each in (one, other)]
    assert raw_digest(done[0].disk) == raw_digest(done[1].disk)
    assert done[0].disk.path.read_bytes()[:100] == done[1].disk.path.read_bytes()[:100]
    clean(done[0].disk, tmp_path)
    assert {"/etc/a", "/etc/b", "/new"} <= listing(done[0].disk).keys()


def test_what_has_not_changed_stays_where_it_was(tmp_path: Path, base: Disk) -> None:
    settled = normalize(base, None, tmp_path / "base.qcow2", epoch=EPOCH)
    again = normalize(settled.disk, settled.disk, tmp_path / "again.qcow2", epoch=EPOCH)
    assert raw_digest(again.disk) == raw_digest(settled.disk)
    assert again.disk.path.stat().st_size <= 6 * 65536  # nothing but a header and tables
    raw = qemuimg.convert(settled.disk, tmp_path / "settled.raw", "raw")
    (tmp_path / "a").write_bytes(b"a" * 70_000)
    more = normalize(changed(raw, tmp_path / "more.raw", f"write {tmp_path}/a /etc/a"), raw, tmp_path / "more.qcow2", epoch=EPOCH)
    assert more.files_in_place == sum(1 for entry in listing(base).values() if entry.sha256) - 1  # one of them has two names
    assert more.disk.path.stat().st_size < 20 * 65536
    clean(more.disk, tmp_path)


def test_an_overlay_is_read_no_further_than_it_differs(tmp_path: Path, base: Disk) -> None:
    below = qemuimg.convert(normalize(base, None, tmp_path / "base.qcow2", epoch=EPOCH).disk, tmp_path / "below.qcow2", "qcow2")
    overlay = qemuimg.create_overlay(below, tmp_path / "overlay.qcow2")
    done = normalize(overlay, below, tmp_path / "new.qcow2", epoch=EPOCH)
    assert raw_digest(done.disk) == raw_digest(below)


def test_a_grown_file_system_and_freed_space(tmp_path: Path, tree: Path) -> None:
    below = make(tmp_path / "below.raw", tree, size="96M")
    grown = changed(below, tmp_path / "grown.raw", "rm /usr/bin/tool", "rm /usr/bin/same-tool")
    os.truncate(grown.path, 300 << 20)
    subprocess.run(["e2fsck", "-fy", grown.path], check=False, capture_output=True)
    sh("resize2fs", grown.path)
    done = normalize(Disk(grown.path, "raw", 300 << 20), below, tmp_path / "new.qcow2", epoch=EPOCH)
    raw = clean(done.disk, tmp_path)
    assert raw.stat().st_size == 300 << 20
    content = (tree / "usr/bin/tool").read_bytes()[:4096]
    assert content not in raw.read_bytes()  # freed blocks are zeros


def test_a_fragmented_file_has_a_tree(tmp_path: Path, tree: Path) -> None:
    disk = make(tmp_path / "disk.raw", tree, "-b", "1024", size="48M")
    commands = [f"rm /many/file-number-{number:05d}" for number in range(0, 1500, 2)]
    holes = changed(disk, tmp_path / "holes.raw", *commands)
    settled = qemuimg.convert(normalize(holes, disk, tmp_path / "holes.qcow2", epoch=EPOCH).disk, tmp_path / "settled.raw", "raw")
    free = int(next(line.split()[-1] for line in sh("dumpe2fs", "-h", settled.path).splitlines() if line.startswith("Free blocks")))
    (tmp_path / "large").write_bytes(os.urandom((free - 400) * 1024))
    filled = changed(settled, tmp_path / "filled.raw", f"write {tmp_path}/large /large")
    done = normalize(filled, settled, tmp_path / "new.qcow2", epoch=EPOCH)
    raw = clean(done.disk, tmp_path)
    sh("debugfs", "-R", f"dump /large {tmp_path}/back", raw)
    assert (tmp_path / "back").read_bytes() == (tmp_path / "large").read_bytes()


@pytest.mark.parametrize(
    ("features", "extra", "word"),
    [
        (FEATURES + ",inline_data", (), "inline_data"),
        (FEATURES + ",quota", (), "quota"),
        ("none,has_journal,ext_attr,filetype,sparse_super", (), "no extents"),
        (FEATURES + ",bigalloc", ("-C", "16384"), "bigalloc"),
    ],
)
def test_what_would_be_lost_is_refused(tmp_path: Path, tree: Path, features: str, extra: Sequence[str], word: str) -> None:
    disk = make(tmp_path / "disk.raw", tree / "etc", *extra, features=features)
    with pytest.raises(CannotNormalize, match=word) as caught:
        normalize(disk, None, tmp_path / "new.qcow2", epoch=EPOCH)
    assert caught.value.code == "disk.cannot-normalize"
    assert not (tmp_path / "new.qcow2").exists()


def test_a_file_system_that_was_not_unmounted_is_refused(tmp_path: Path, base: Disk) -> None:
    disk = changed(base, tmp_path / "dirty.raw", "feature needs_recovery")
    with pytest.raises(NotUnmounted) as caught:
        normalize(disk, base, tmp_path / "new.qcow2", epoch=EPOCH)
    assert caught.value.code == "disk.not-unmounted"


def test_what_lies_outside_of_file_systems_stays(tmp_path: Path, tree: Path) -> None:
    whole = tmp_path / "whole.raw"
    with whole.open("wb") as file:
        file.truncate(200 << 20)
    sh("sfdisk", "-q", whole, input="label: gpt\nlabel-id: 5B1A9B0E-1F0E-4F8E-9D0A-0123456789AC\nstart=2048, size=2048\nstart=4096\n")
    root = make(tmp_path / "root.raw", tree)
    sh("dd", f"if={root.path}", f"of={whole}", "bs=1M", "seek=2", "conv=notrunc,sparse")
    loader = os.urandom(512 * 100)
    with whole.open("r+b") as file:
        file.seek(2048 * 512)
        file.write(loader)
    disk = Disk(whole, "raw", 200 << 20)
    raw = qemuimg.convert(normalize(disk, None, tmp_path / "new.qcow2", epoch=EPOCH).disk, tmp_path / "new.raw", "raw").path
    with whole.open("rb") as before, raw.open("rb") as after:
        assert before.read(2 << 20) == after.read(2 << 20)
        before.seek((2 + 96) << 20)
        after.seek((2 + 96) << 20)
        assert before.read() == after.read()
    assert listing(Disk(raw, "raw", 200 << 20)).keys() == listing(disk).keys()


# --- rules -------------------------------------------------------------------------------------------------------------


def node(path: str, content: bytes = b"", mtime: int = EPOCH, mode: int = 0o100644) -> FileNode:
    return FileNode(path, mode, 0, 0, mtime, content=content)


def applied(*nodes: FileNode, known: dict[str, int] | None = None) -> dict[str, FileNode]:
    return dict(normalize_rules.apply({each.path: each for each in nodes}, lambda each: each.content or b"", EPOCH, known).nodes)


def test_times_are_clamped_but_for_files_of_before() -> None:
    found = applied(
        node("/new", mtime=EPOCH + 5), node("/old", mtime=EPOCH - 5), node("/kept", mtime=EPOCH + 9), known={"/kept": EPOCH + 9}
    )
    assert {path: each.mtime for path, each in found.items()} == {"/new": EPOCH, "/old": EPOCH - 5, "/kept": EPOCH + 9}


def test_bytecode_says_the_time_that_its_source_has() -> None:
    compiled = struct.pack("<4sIII", b"\xa7\r\r\n", 0, EPOCH + 77, 12) + b"code"
    found = applied(node("/a/m.py", b"x", EPOCH + 77), node("/a/__pycache__/m.cpython-311.pyc", compiled, EPOCH + 78))
    assert found["/a/__pycache__/m.cpython-311.pyc"].content == struct.pack("<4sIII", b"\xa7\r\r\n", 0, EPOCH, 12) + b"code"
    checked = struct.pack("<4sIQ", b"\xa7\r\r\n", 3, 1 << 40) + b"code"
    assert (
        applied(node("/a/m.py", b"x"), node("/a/__pycache__/m.cpython-311.pyc", checked))["/a/__pycache__/m.cpython-311.pyc"].content
        == checked
    )


def test_sockets_and_caches_leave() -> None:
    nodes = [
        node("/run/s", mode=0o140755),
        node("/var/cache/man/de/index.db"),
        node("/var/cache/fontconfig/x.cache-7"),
        node("/var/cache/man/de/keep"),
    ]
    assert list(applied(*nodes)) == ["/var/cache/man/de/keep"]


def test_whether_a_time_server_answered_cannot_be_seen() -> None:
    """timesyncd makes its file with the time of its own making, and touches it once a server has answered."""
    clock = "/var/lib/systemd/timesync/clock"
    answers = [applied(node(clock, mtime=mtime), known={clock: EPOCH + 7}) for mtime in (EPOCH - 10_000_000, EPOCH + 9, EPOCH + 7)]
    assert [found[clock].mtime for found in answers] == [EPOCH, EPOCH, EPOCH]


def test_the_documentation_has_the_rules() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/reproducibility.md").read_text()
    assert normalize_rules_table() in text, (
        "write what tests.support.documents.normalize_rules_table() returns into docs/reproducibility.md"
    )


def test_a_git_index_forgets_the_machine(tmp_path: Path) -> None:
    def index(directory: Path) -> bytes:
        sh("git", "init", "-q", directory)
        (directory / "a file").write_text("x")
        (directory / "b").write_text("y")
        sh("git", "-C", directory, "add", ".")
        return (directory / ".git/index").read_bytes()

    one, other = index(tmp_path / "one"), index(tmp_path / "other")
    assert one != other
    found = [applied(node("/srv/.git/index", each))["/srv/.git/index"].content for each in (one, other)]
    assert found[0] == found[1]
    assert found[0] is not None and hashlib.sha1(found[0][:-20]).digest() == found[0][-20:]
    (tmp_path / "one/.git/index").write_bytes(found[0])
    assert sh("git", "-C", tmp_path / "one", "status", "--porcelain") == 'A  "a file"\nA  b\n'


def test_rules_say_what_they_did() -> None:
    done = normalize_rules.apply(
        {"/etc/.updated": node("/etc/.updated", b"# x\nTIMESTAMP_NSEC=17000000001234\n")}, lambda each: each.content or b"", EPOCH
    )
    assert done.changes["stamps/1"] == ("/etc/.updated",)
    assert done.nodes["/etc/.updated"].content == f"# x\nTIMESTAMP_NSEC={EPOCH}000000000\n".encode()


# --- runs --------------------------------------------------------------------------------------------------------------


def test_runs() -> None:
    assert merged([(5, 2), (0, 3), (3, 1), (6, 4)]) == [(0, 4), (5, 5)]
    assert list(gaps([(2, 2), (6, 1)], 0, 10)) == [(0, 2), (4, 2), (7, 3)]
    assert subtract([(0, 10), (20, 5)], [(3, 2), (22, 1), (8, 5)]) == [(0, 3), (5, 3), (20, 2), (23, 2)]
    assert list(clipped([(0, 4), (6, 10)], 2, 6)) == [(0, 2), (4, 2)]
    assert disjoint([(9, 1), (0, 2), (4, 3)], [(1, 1), (6, 1)]) == [(9, 1)]
    assert first_blocks([(9, 2), (0, 5)], 4) == [(9, 2), (0, 2)]


def test_free_blocks_are_taken_from_the_lowest_place_that_fits() -> None:
    free = FreeBlocks([(0, 2), (5, 3), (10, 100)])
    assert free.allocate(3) == [(5, 3)]
    assert free.allocate(1) == [(0, 1)]
    assert free.allocate(101) == [(1, 1), (10, 100)]
    with pytest.raises(ValueError, match="no free blocks"):
        free.allocate(1)


def test_an_empty_gzip_is_not_a_tree(tmp_path: Path) -> None:
    """Nothing that is no file system is laid out."""
    path = tmp_path / "disk.raw"
    path.write_bytes(gzip.compress(b"") + bytes(1 << 20))
    with pytest.raises(UnsupportedFilesystem) as caught:
        normalize(Disk(path, "raw", path.stat().st_size), None, tmp_path / "new.qcow2", epoch=EPOCH)
    assert caught.value.code == "disk.unsupported-filesystem"
    shutil.rmtree(tmp_path)
