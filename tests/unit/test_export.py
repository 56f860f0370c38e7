"""Exports: whole files in every format that other tools read, and nothing half-made."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from baker.catalog.records import ImageRecord
from baker.core.errors import BusyError, HostError, NotFoundError, UsageError
from baker.core.events import Memory, Null, Progress, Reporter
from baker.core.model import Disk
from baker.disks import qemuimg
from baker.disks.image_format import detect
from baker.disks.raw import raw_digest
from baker.publish.export import COMPRESSED, export
from baker.store.directory import DirectoryStore
from baker.template.model import COMPRESSIONS
from tests.support.disks import create_qcow2

QUIET = Reporter(Null())


def sh(*argv: str | Path) -> str:
    return subprocess.run([str(a) for a in argv], check=True, capture_output=True, text=True).stdout


def record(store: DirectoryStore, *chain: str) -> ImageRecord:
    disk = store.materialize(chain)
    return ImageRecord(
        id="a" * 12, name="web", version="1.0.0", digest=raw_digest(disk), fingerprint="f" * 64, parent=None, created="", size=0,
        virtual_size=disk.virtual_size, chain=chain, verified=True, build="b" * 12,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "blobs")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ImageRecord]:
    """A store with an image that is a delta on a base."""
    directory = tmp_path_factory.mktemp("prepared")
    store = DirectoryStore(directory / "blobs")
    base = create_qcow2(directory / "base", 16 << 20)
    sh("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 2M", base.path)
    delta = qemuimg.create_overlay(base, directory / "delta")
    sh("qemu-io", "-f", "qcow2", "-c", "write -P 2 1M 2M", delta.path)
    below = store.add_disk(base, None)
    return store.root, record(store, store.add_disk(delta, below), below)


@pytest.fixture
def image(store: DirectoryStore, prepared: tuple[Path, ImageRecord]) -> ImageRecord:
    shutil.copytree(prepared[0], store.root)
    return prepared[1]


@pytest.mark.parametrize(
    ("form", "compress"),
    [
        ("qcow2", "none"),
        ("qcow2", "zlib"),
        ("qcow2", "zstd"),
        ("raw", "none"),
        ("vmdk", "none"),
        ("vmdk", "zlib"),
        ("vhdx", "none"),
        ("vdi", "none"),
    ],
)
def test_every_format_holds_the_image(tmp_path: Path, store: DirectoryStore, image: ImageRecord, form: str, compress: str) -> None:
    sink = Memory()
    out = export(store, image, form, tmp_path / f"out.{form}", compress=compress, report=Reporter(sink))
    assert out == tmp_path / f"out.{form}"
    info = qemuimg.info(out, detect(out).format)
    assert (info.format, info.backing) == (form, None)
    assert info.compression == {"zstd": "zstd"}.get(compress, "zlib" if form == "qcow2" else None)
    assert raw_digest(qemuimg.as_disk(out, form), scratch=tmp_path) == image.digest
    steps = [event for event in sink.events if isinstance(event, Progress)]
    assert (steps[-1].done, steps[-1].total) == (image.virtual_size, image.virtual_size)
    assert list(tmp_path.glob(".*")) == []


def test_the_digest_is_what_sha256sum_says_of_a_raw_export(tmp_path: Path, store: DirectoryStore, image: ImageRecord) -> None:
    out = export(store, image, "raw", tmp_path / "out", report=QUIET)
    assert image.digest == "sha256:" + sh("sha256sum", out).split()[0]


@pytest.mark.parametrize(
    ("form", "compress", "code", "fact"),
    [
        ("iso", "none", "export.format", "'iso'"),
        ("raw", "zlib", "export.compression", "raw .* zlib"),
        ("qcow2", "lz4", "export.compression", "lz4"),
        ("tar", "zstd", "export.compression", "tar"),
    ],
)
def test_choices_that_make_no_sense(
    tmp_path: Path, store: DirectoryStore, image: ImageRecord, form: str, compress: str, code: str, fact: str
) -> None:
    with pytest.raises(UsageError, match=fact) as failure:
        export(store, image, form, tmp_path / "out", compress=compress, report=QUIET)
    assert failure.value.code == code


def test_destinations(tmp_path: Path, store: DirectoryStore, image: ImageRecord) -> None:
    (tmp_path / "there").write_text("precious")
    for destination, code, fact in (
        (Path("-"), "output.stdout", "standard output"),
        (tmp_path / "no/where", "output.no-directory", f"{tmp_path}/no"),
        (tmp_path / "there", "output.exists", f"{tmp_path}/there"),
    ):
        with pytest.raises(UsageError, match=fact) as failure:
            export(store, image, "raw", destination, report=QUIET)
        assert failure.value.code == code
    assert (tmp_path / "there").read_text() == "precious"
    assert export(store, image, "raw", tmp_path / "there", report=QUIET, overwrite=True).stat().st_size == image.virtual_size
    (tmp_path / "dir").mkdir()
    assert export(store, image, "qcow2", tmp_path / "dir", report=QUIET) == tmp_path / "dir/web-1.0.0.qcow2"


def test_failing_leaves_the_old_file_and_nothing_else(tmp_path: Path, store: DirectoryStore, image: ImageRecord) -> None:
    out = tmp_path / "dir/out"
    out.parent.mkdir()
    out.write_text("old")
    below = store.path(image.chain[1])
    below.chmod(0o600)
    below.write_bytes(b"damaged")
    with pytest.raises(HostError) as caught:
        export(store, image, "raw", out, report=QUIET, overwrite=True)
    assert caught.value.code == "disk.qemu-img-failed"
    store.delete(image.chain[1])
    with pytest.raises(NotFoundError, match=image.chain[1]):
        export(store, image, "raw", out, report=QUIET, overwrite=True)
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert out.read_text() == "old"


def test_two_exports_to_one_file(tmp_path: Path, store: DirectoryStore, image: ImageRecord) -> None:
    part = tmp_path / ".out.part"
    with part.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match=str(part)) as busy:
            export(store, image, "raw", tmp_path / "out", report=QUIET)
        assert busy.value.code == "export.running"
    assert export(store, image, "raw", tmp_path / "out", report=QUIET).exists(), "a dead one's file is in nobody's way"
    assert not part.exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from baker.publish.export import whole_or_absent
with whole_or_absent(Path(sys.argv[1])) as part:
    part.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_in_the_middle(tmp_path: Path, store: DirectoryStore, image: ImageRecord) -> None:
    out = tmp_path / "out"
    assert subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False).returncode == -signal.SIGKILL
    assert not out.exists()
    export(store, image, "raw", out, report=QUIET)
    assert raw_digest(Disk(out, "raw", image.virtual_size)) == image.digest
    assert list(tmp_path.glob(".*")) == []


# --- tar -----------------------------------------------------------------------------------------------------------------


def a_tree(root: Path) -> Path:
    long = root / ("directory-" * 9) / ("name-" * 40)
    long.parent.mkdir(parents=True)
    long.write_bytes(b"long name")
    (root / "etc").mkdir()
    (root / "etc/file").write_bytes(os.urandom(5000))
    (root / "etc/empty").touch(0o4755)
    (root / "ünïcode").write_text("x")
    (root / os.fsdecode(b"bytes-\xff")).write_text("y")
    (root / "link").symlink_to("/" + "t" * 150)
    os.link(root / "etc/file", root / "second")
    os.mkfifo(root / "fifo", 0o600)
    with (root / "sparse").open("wb") as file:
        file.truncate(3 << 20)
    os.setxattr(root / "etc/file", "user.binary", b"\x00\xff\n=")
    (root / "etc").chmod(0o1777)
    if os.getuid() == 0:
        os.mknod(root / "null", 0o666 | 0o020000, os.makedev(1, 3))
        os.chown(root / "etc/empty", 3_000_000, 4_000_000)
        os.chmod(root / "etc/empty", 0o6711)
    for path in root.rglob("*"):
        os.utime(path, (1, -7 if path.name == "second" else 1_600_000_000), follow_symlinks=False)
    return root


def facts(root: Path) -> dict[str, tuple[object, ...]]:
    found = {}
    for path in root.rglob("*"):
        info = path.lstat()
        content = os.readlink(path) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        xattrs = {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}
        links = info.st_nlink if path.is_file() else 0
        found[str(path.relative_to(root))] = (
            info.st_mode,
            info.st_uid,
            info.st_gid,
            info.st_rdev,
            int(info.st_mtime // 1),
            content,
            xattrs,
            links,
        )
    return found


@pytest.mark.skipif(os.getuid() != 0, reason="unpacking owners and devices needs root")
def test_a_tar_unpacks_to_the_same_tree(tmp_path: Path, store: DirectoryStore) -> None:
    tree = a_tree(tmp_path / "tree")
    sh("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, tmp_path / "fs", "32M")
    image = record(store, store.add_disk(qemuimg.as_disk(tmp_path / "fs", "raw"), None))
    out = export(store, image, "tar", tmp_path / "out.tar", report=QUIET)
    again = tmp_path / "again"
    again.mkdir()
    said = subprocess.run(
        ["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", out, "-C", again], check=True, capture_output=True
    )
    assert said.stderr == b""
    (again / "lost+found").rmdir()
    assert facts(again) == facts(tree)
    assert (again / "second").samefile(again / "etc/file")
    with tarfile.open(out) as archive:
        assert archive.getmember("./etc/file").pax_headers.keys() >= {"SCHILY.xattr.user.binary"}


def test_a_tar_of_no_file_system(tmp_path: Path, store: DirectoryStore, image: ImageRecord) -> None:
    with pytest.raises(HostError) as caught:
        export(store, image, "tar", tmp_path / "out.tar", report=QUIET)
    assert caught.value.code == "disk.unsupported-filesystem"
    assert not list(tmp_path.glob("*out.tar*"))


def test_the_template_knows_which_formats_can_be_compressed() -> None:
    assert {(kind, way) for kind, ways in COMPRESSIONS.items() for way in ways} == set(COMPRESSED)
