"""The directory store: whole or absent, once, whatever kills the writer."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from baker.core.errors import HostError, NotFoundError, UsageError
from baker.disks import qemuimg
from baker.store.directory import DirectoryStore
from tests.support.disks import create_qcow2


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "blobs")


def leftovers(store: DirectoryStore) -> list[str]:
    return sorted(path.name for path in (store.root / "tmp").glob("*"))


def test_bytes_come_back_by_digest(store: DirectoryStore) -> None:
    digest = store.add_bytes(b"hello")
    assert digest == sha256(b"hello")
    with store.open(digest) as file:
        assert file.read() == b"hello"
    assert store.size(digest) == 5
    assert store.has(digest)
    assert store.verify(digest)
    assert list(store.digests()) == [digest]
    assert store.path(digest).stat().st_mode & 0o777 == 0o444
    assert leftovers(store) == []


def test_adding_twice_keeps_one(store: DirectoryStore, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"same")
    first = store.add_file(tmp_path / "a")
    inode = store.path(first).stat().st_ino
    assert store.add_bytes(b"same") == first
    assert list(store.digests()) == [first]
    assert store.path(first).stat().st_ino == inode
    assert leftovers(store) == []


def test_a_file_is_moved_not_copied(store: DirectoryStore, tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(b"x" * 100_000)
    inode = path.stat().st_ino
    digest = store.add_file(path)
    assert not path.exists()
    assert store.path(digest).stat().st_ino == inode


@pytest.mark.skipif(
    not os.access("/dev/shm", os.W_OK) or os.stat("/dev/shm").st_dev == os.stat("/tmp").st_dev, reason="one file system only"
)
def test_a_file_on_another_file_system_is_copied_with_its_holes(store: DirectoryStore) -> None:
    path = Path("/dev/shm") / f"bake-test-{os.getpid()}"
    try:
        with path.open("wb") as file:
            file.seek(8 << 20)
            file.write(b"end")
            file.truncate(16 << 20)
        expected = sha256(path.read_bytes())
        digest = store.add_file(path)
        assert digest == expected
        assert store.verify(digest)
        assert not path.exists()
        assert store.path(digest).stat().st_blocks * 512 < 1 << 20
    finally:
        path.unlink(missing_ok=True)


def test_what_is_absent(store: DirectoryStore) -> None:
    digest = sha256(b"never")
    assert not store.has(digest)
    assert list(store.digests()) == []
    store.delete(digest)
    for ask in (store.path, store.open, store.size, store.verify):
        with pytest.raises(NotFoundError, match=digest) as missing:
            ask(digest)
        assert missing.value.code == "store.no-such-blob"
    with pytest.raises(NotFoundError, match="passwd") as refused:
        store.path("../../etc/passwd")
    assert refused.value.code == "store.not-a-digest"


def test_verify_notices_changed_bytes(store: DirectoryStore) -> None:
    digest = store.add_bytes(b"good")
    path = store.path(digest)
    path.chmod(0o644)
    path.write_bytes(b"evil")
    assert not store.verify(digest)


def test_delete(store: DirectoryStore) -> None:
    digest = store.add_bytes(b"x")
    store.delete(digest)
    assert not store.has(digest)


WRITER = """
import sys
from pathlib import Path
from baker.store.directory import DirectoryStore
store = DirectoryStore(Path(sys.argv[1]))
with store._incoming(0) as path:
    path.write_bytes(b"half of it")
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_kill_in_the_middle_leaves_a_whole_store(store: DirectoryStore) -> None:
    kept = store.add_bytes(b"kept")
    with subprocess.Popen([sys.executable, "-c", WRITER, str(store.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        assert store.clean() == 0, "a live writer's file was taken away"
        assert len(leftovers(store)) == 2
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdin = None
    assert list(store.digests()) == [kept]
    assert store.clean() == 1
    assert leftovers(store) == []
    assert store.verify(kept)


def test_a_full_disk_names_the_file_system_and_the_need(store: DirectoryStore) -> None:
    store.add_bytes(b"small")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, old[1]))
    try:
        with pytest.raises(HostError, match=r"no space left.*file system at /.*free.*200000 bytes.*needed"):
            store.add_bytes(b"x" * 200_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert len(list(store.digests())) == 1
    assert leftovers(store) == []


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to mount a small file system")
def test_a_really_full_file_system(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "none", small], check=False, capture_output=True).returncode:
        pytest.skip("this root may not mount")
    try:
        store = DirectoryStore(small / "blobs")
        disk = create_qcow2(tmp_path / "disk.qcow2", 64 << 20)
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 1 0 4M", disk.path], check=True, capture_output=True)
        with pytest.raises(HostError, match=f"no space left.*file system at {small} has"):
            store.add_disk(disk, None)
        assert disk.path.exists(), "the disk must not be lost"
        with pytest.raises(HostError, match="no space left"):
            qemuimg.convert(disk, small / "out.raw", "raw", options={})
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        with pytest.raises(HostError, match="read-only"):
            store.add_bytes(b"x")
    finally:
        subprocess.run(["umount", small], check=True)


def disk_with(path: Path, backing: Path | None, byte: int, at: str) -> None:
    if backing is None:
        create_qcow2(path, 8 << 20)
    else:
        qemuimg.create_overlay(qemuimg.as_disk(backing, "qcow2"), path)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", f"write -P {byte} {at} 64k", path], check=True, capture_output=True)


def test_a_chain_of_disks_survives_moving_the_store(store: DirectoryStore, tmp_path: Path) -> None:
    disk_with(tmp_path / "base", None, 1, "0")
    disk_with(tmp_path / "delta", tmp_path / "base", 2, "1M")
    disk_with(tmp_path / "delta2", tmp_path / "delta", 3, "2M")
    digests: list[str] = []
    for name in ("base", "delta", "delta2"):
        digests.append(store.add_disk(qemuimg.as_disk(tmp_path / name, "qcow2"), digests[-1] if digests else None))
        assert not (tmp_path / name).exists()
    moved = DirectoryStore(store.root.rename(tmp_path / "elsewhere"))
    parts = qemuimg.chain(moved.materialize(digests[::-1]))
    assert [part.path.resolve() for part in parts] == [moved.path(digest) for digest in reversed(digests)]
    assert parts[0].backing == f"../{digests[1][7:9]}/{digests[1][7:]}"
    assert all(moved.verify(digest) for digest in digests)
    raw = tmp_path / "raw"
    qemuimg.convert(moved.materialize(digests[::-1]), raw, "raw")
    data = raw.read_bytes()
    assert (data[0], data[1 << 20], data[2 << 20], data[3 << 20]) == (1, 2, 3, 0)


def test_a_raw_disk_becomes_qcow2(store: DirectoryStore, tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"\x05" * 65536 + bytes(65536))
    disk = store.materialize([store.add_disk(qemuimg.as_disk(tmp_path / "raw", "raw"), None)])
    assert (disk.format, disk.virtual_size) == ("qcow2", 131072)


def test_disks_that_do_not_fit_their_place(store: DirectoryStore, tmp_path: Path) -> None:
    disk_with(tmp_path / "base", None, 1, "0")
    disk_with(tmp_path / "delta", tmp_path / "base", 2, "1M")
    delta = qemuimg.as_disk(tmp_path / "delta", "qcow2")
    with pytest.raises(UsageError, match=r"delta.*base") as refused:
        store.add_disk(delta, None)
    assert refused.value.code == "store.disk-incomplete"
    with pytest.raises(NotFoundError):
        store.add_disk(delta, sha256(b"no such parent"))
    assert delta.path.exists()
    base = store.add_disk(qemuimg.as_disk(tmp_path / "base", "qcow2"), None)
    disk_with(tmp_path / "alone", None, 1, "0")
    with pytest.raises(UsageError, match="alone") as refused:
        store.add_disk(qemuimg.as_disk(tmp_path / "alone", "qcow2"), base)
    assert refused.value.code == "store.not-a-delta"
