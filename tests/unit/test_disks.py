"""Reading disks in place, compared with the tools that wrote them: mke2fs, sfdisk, qemu-img."""

from __future__ import annotations

import functools
import hashlib
import os
import random
import socket
import stat
import struct
import subprocess
import tracemalloc
from pathlib import Path

import pytest

from baker.core.errors import HostError
from baker.core.model import Disk, Package
from baker.disks import qemuimg
from baker.disks.ext4.reader import NotUnmounted, UnsupportedFilesystem
from baker.disks.manifest import file_manifest
from baker.disks.packages.installed import disk_packages
from baker.disks.partitions import filesystem, partitions
from baker.disks.raw import open_raw, raw_digest
from baker.disks.rootfs import find_kernel, open_root
from tests.support.disks import create_qcow2, root_file

MIB = 1 << 20


def sh(*argv: str | Path, **more: object) -> str:
    return subprocess.run([str(a) for a in argv], check=True, capture_output=True, text=True, **more).stdout  # type: ignore[call-overload, no-any-return]


def io(path: Path, *commands: str, form: str = "qcow2") -> None:
    sh("qemu-io", "-f", form, *(word for command in commands for word in ("-c", command)), path)


# --- qemu-img ------------------------------------------------------------------------------------------------------------


def test_converting_tells_how_far_it_is(tmp_path: Path) -> None:
    disk = create_qcow2(tmp_path / "a.qcow2", 64 * MIB)
    io(disk.path, "write -P 3 0 32M")
    heard: list[float] = []
    done = qemuimg.convert(disk, tmp_path / "b.raw", "raw", advance=heard.append)
    assert done == Disk(tmp_path / "b.raw", "raw", 64 * MIB)
    assert heard[-1] == 1.0
    assert heard == sorted(heard)


def test_an_overlay_is_as_large_as_its_disk_or_larger(tmp_path: Path) -> None:
    disk = create_qcow2(tmp_path / "a.qcow2", 8 * MIB)
    overlay = qemuimg.create_overlay(disk, tmp_path / "o.qcow2", size=16 * MIB)
    assert qemuimg.info(overlay.path, "qcow2").virtual_size == 16 * MIB
    assert [part.virtual_size for part in qemuimg.chain(overlay)] == [16 * MIB, 8 * MIB]
    with pytest.raises(HostError, match=rf"\b{MIB}\b.*a\.qcow2.*\b{8 * MIB}\b") as caught:
        qemuimg.create_overlay(disk, tmp_path / "p.qcow2", size=MIB)
    assert caught.value.code == "disk.too-small"


def test_what_qemu_img_refuses_is_a_plain_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no disk")
    with pytest.raises(HostError, match="qcow2") as read:
        qemuimg.info(tmp_path / "x", "qcow2")
    with pytest.raises(HostError, match=r"(?i)absent.*no such file") as absent:
        qemuimg.as_disk(tmp_path / "absent", "qcow2")
    with pytest.raises(HostError, match="qcow2") as converted:
        qemuimg.convert(Disk(tmp_path / "x", "qcow2", 1), tmp_path / "y", "raw")
    assert {error.value.code for error in (read, absent, converted)} == {"disk.qemu-img-failed"}


# --- raw bytes -----------------------------------------------------------------------------------------------------------


def sha256_of_raw(disk: Disk, scratch: Path) -> str:
    raw = scratch / "whole.raw"
    sh("qemu-img", "convert", "-f", disk.format, "-O", "raw", disk.path, raw)
    try:
        return "sha256:" + hashlib.sha256(raw.read_bytes()).hexdigest()
    finally:
        raw.unlink()


def scribble(path: Path, seed: int, size: int, form: str = "qcow2") -> None:
    rng = random.Random(seed)
    io(
        path,
        *(f"write -q -P {rng.randrange(1, 256)} {rng.randrange(size // 512 - 400) * 512} {rng.randrange(1, 400) * 512}" for _ in range(30)),
        form=form,
    )
    io(
        path,
        f"write -q -z {rng.randrange(size // 65536 - 4) * 65536} 128k",
        f"discard -q {rng.randrange(size // 65536 - 4) * 65536} 128k",
        form=form,
    )


@pytest.mark.parametrize("options", ["cluster_size=4096", "extended_l2=on", "compression_type=zstd", "compat=0.10"])
def test_the_digest_is_that_of_a_raw_export(tmp_path: Path, options: str) -> None:
    """Through raw, compressed and sparse layers of unequal sizes, one backing the other."""
    size = 12 * MIB
    base = tmp_path / "base.raw"
    with base.open("wb") as file:
        file.truncate(size - 1536)
    scribble(base, 1, size // 2, "raw")
    more = ["-o", options] if options else []
    disks = [Disk(base, "raw", size - 1536)]
    for number in range(1, 4):
        path = tmp_path / f"{number}.qcow2"
        backing = disks[-1]
        sh("qemu-img", "create", "-q", "-f", "qcow2", *more, "-b", backing.path, "-F", backing.format, path, str(size + number * MIB + 512))
        scribble(path, number + 10, size)
        if number == 2 and "compat" not in options:
            packed = tmp_path / "packed.qcow2"
            sh("qemu-img", "convert", "-c", "-f", "qcow2", "-O", "qcow2", *more, "-B", backing.path, "-F", backing.format, path, packed)
            packed.rename(path)
        disks.append(qemuimg.as_disk(path, "qcow2"))
    for disk in disks:
        assert raw_digest(disk, scratch=tmp_path) == sha256_of_raw(disk, tmp_path), disk.path.name


def test_other_formats_have_the_same_digest(tmp_path: Path) -> None:
    disk = create_qcow2(tmp_path / "a.qcow2", 4 * MIB)
    scribble(disk.path, 5, 4 * MIB)
    for form in ("raw", "vmdk", "vhdx", "vdi"):
        other = qemuimg.convert(disk, tmp_path / f"a.{form}", form)  # type: ignore[arg-type]
        assert raw_digest(other, scratch=tmp_path) == raw_digest(disk), form


def test_reading_anywhere(tmp_path: Path) -> None:
    disk = create_qcow2(tmp_path / "a.qcow2", 4 * MIB)
    scribble(disk.path, 6, 4 * MIB)
    qemuimg.convert(disk, tmp_path / "c.qcow2", "qcow2", compress=True)
    whole = qemuimg.convert(disk, tmp_path / "a.raw", "raw").path.read_bytes()
    rng = random.Random(1)
    with open_raw(qemuimg.as_disk(tmp_path / "c.qcow2", "qcow2")) as reader:
        assert reader.size == len(whole)
        for _ in range(200):
            offset, length = rng.randrange(len(whole)), rng.randrange(300_000)
            assert reader.pread(offset, length) == whole[offset : offset + length]
        assert reader.pread(len(whole), 10) == b""


def test_a_huge_disk_costs_no_memory(tmp_path: Path) -> None:
    disk = create_qcow2(tmp_path / "a.qcow2", 1 << 40)
    io(disk.path, *(f"write -q -P 1 {number * 3}M 64k" for number in range(100)))
    tracemalloc.start()
    with open_raw(disk) as reader:
        assert sum(len(piece) for piece in reader.chunks(0, 400 * MIB)) == 400 * MIB
    assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    tracemalloc.stop()


# --- partitions ----------------------------------------------------------------------------------------------------------


def sfdisk(path: Path, script: str, size: int = 64 * MIB, *more: str) -> Disk:
    with path.open("wb") as file:
        file.truncate(size)
    sh("sfdisk", "-q", *more, path, input=script)
    return Disk(path, "raw", size)


GPT = """label: gpt
label-id: 11111111-2222-3333-4444-555555555555
1 : start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649
15 : start=4096, size=20480, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="ESP ä"
2 : start=24576, size=65536, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=AAAAAAAA-BBBB-CCCC-DDDD-EEEEEEEEEEEE, name=root
"""


def test_gpt(tmp_path: Path) -> None:
    disk = sfdisk(tmp_path / "d", GPT)
    with open_raw(disk) as reader:
        found = partitions(reader)
    assert [(part.number, part.start // 512, part.size // 512, part.name) for part in found] == [
        (1, 2048, 2048, ""),
        (2, 24576, 65536, "root"),
        (15, 4096, 20480, "ESP ä"),
    ]
    assert found[1].uuid == "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
    assert found[1].type == "0fc63daf-8483-4772-8e79-3d69d8477de4"
    with disk.path.open("r+b") as file:  # the first copy is lost
        file.seek(512)
        file.write(bytes(512))
    with open_raw(disk) as reader:
        assert partitions(reader) == found


def test_gpt_with_large_sectors(tmp_path: Path) -> None:
    """As disks with 4096-byte sectors have it (UEFI Specification 2.10, tables 5.5 and 5.6), which sfdisk cannot write into a file."""
    header = struct.pack("<8s4I4Q16sQIII", b"EFI PART", 0x10000, 92, 0, 0, 1, 4095, 6, 4000, bytes(16), 2, 128, 128, 0)
    entry = struct.pack("<16s16sQQQ72s", b"\1" * 16, b"\2" * 16, 256, 1279, 0, "x".encode("utf-16-le"))
    (tmp_path / "d").write_bytes(bytes(4096) + header.ljust(4096, b"\0") + entry.ljust(16 * MIB - 8192, b"\0"))
    with open_raw(Disk(tmp_path / "d", "raw", 16 * MIB)) as reader:
        assert [(part.start, part.size, part.name) for part in partitions(reader)] == [(MIB, 4 * MIB, "x")]


def test_mbr_with_logical_partitions(tmp_path: Path) -> None:
    script = "label: dos\nlabel-id: 0xdeadbeef\nstart=2048,size=2048,type=83\nstart=4096,type=5\n"
    script += "start=6144,size=2048,type=82\nstart=10240,size=4096,type=83\n"
    with open_raw(sfdisk(tmp_path / "d", script)) as reader:
        assert [(part.number, part.start // 512, part.size // 512, part.type, part.uuid) for part in partitions(reader)] == [
            (1, 2048, 2048, "0x83", "deadbeef-01"),
            (5, 6144, 2048, "0x82", "deadbeef-05"),
            (6, 10240, 4096, "0x83", "deadbeef-06"),
        ]


# --- ext4 ----------------------------------------------------------------------------------------------------------------


def acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFFFFFF
AN_ACL = acl((1, 6, NOBODY), (2, 4, 1234), (4, 4, NOBODY), (8, 2, 99), (16, 6, NOBODY), (32, 0, NOBODY))


def paths_in(root: Path) -> list[Path]:
    """All paths below `root`. Unlike Path.rglob in Python 3.11, os.walk accepts links whose target is too long for a path."""
    return [Path(directory, name) for directory, directories, files in os.walk(root) for name in (*directories, *files)]


def odd_tree(root: Path) -> Path:
    """Everything that a file system can hold and that a reader can get wrong."""
    rng = random.Random(7)
    for name in ("etc", "usr/bin", "empty", "many", "a", "a-b", "var/lib/dpkg", "sparse"):
        (root / name).mkdir(parents=True)
    (root / "a/below").write_bytes(b"1")
    (root / "a-b/below").write_bytes(b"2")
    for number in range(600):
        (root / "many" / f"file-with-a-rather-long-name-{number:04d}-{'x' * (number % 60)}").write_bytes(rng.randbytes(number % 300))
    for size in (0, 1, 59, 60, 61, 150, 1023, 1024, 4095, 4096, 4097, 70_000, 3_000_000):
        (root / f"size-{size}").write_bytes(rng.randbytes(size))
    for length in (1, 58, 59, 60, 61, 200, 1000):
        (root / f"link-{length}").symlink_to("t" * length)
    (root / "ünïcode ☃").write_text("snow")
    (root / os.fsdecode(b"not-utf8-\xff\xfe")).write_text("bytes")
    with (root / "sparse/holes").open("wb") as file:
        for place in (70_000, 5 * MIB, 9 * MIB):
            file.seek(place)
            file.write(b"data")
        file.truncate(12 * MIB + 17)
    with (root / "sparse/nothing").open("wb") as file:
        file.truncate(2 * MIB + 3)
    (root / "hard-1").write_text("linked")
    os.link(root / "hard-1", root / "many/hard-2")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(root / "socket"))
    if os.getuid() == 0:
        os.mknod(root / "tty", 0o620 | stat.S_IFCHR, os.makedev(4, 64))
        os.mknod(root / "disk", 0o660 | stat.S_IFBLK, os.makedev(259, 70_000))
        os.chown(root / "size-1", 70_000, 80_000)
    (root / "size-61").chmod(0o4751)
    (root / "empty").chmod(0o1777)
    os.setxattr(root / "size-0", "user.note", b"short")
    os.setxattr(root / "size-1", "user.long", rng.randbytes(900))
    for number in range(8):
        os.setxattr(root / "a", f"user.several{number}", b"v" * number)
    os.setxattr(root / "size-59", "system.posix_acl_access", AN_ACL)
    os.setxattr(root / "a-b", "system.posix_acl_default", AN_ACL)
    for number, path in enumerate(sorted(paths_in(root))):
        os.utime(path, (1, (-5000, 1_700_000_000)[number % 2]), follow_symlinks=False)
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return odd_tree(tmp_path_factory.mktemp("tree"))


@functools.cache
def _expected(root: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for path in (root, *paths_in(root)):
        info = path.lstat()
        kind = stat.S_IFMT(info.st_mode)
        found["/" + os.path.relpath(path, root) if path != root else "/"] = {
            "mode": info.st_mode,
            "owner": (info.st_uid, info.st_gid),
            "size": info.st_size if kind in (stat.S_IFREG, stat.S_IFLNK) else 0,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest() if kind == stat.S_IFREG else "",
            "target": os.readlink(path) if kind == stat.S_IFLNK else "",
            "mtime": int(info.st_mtime // 1),
            "device": f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}" if kind in (stat.S_IFCHR, stat.S_IFBLK) else "",
            "xattrs": {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in os.listxattr(path, follow_symlinks=False)},
        }
    return found


def expected(root: Path) -> dict[str, dict[str, object]]:
    return dict(_expected(root))


def listed(disk: Disk) -> dict[str, dict[str, object]]:
    return {
        entry.path: {
            "mode": entry.mode,
            "owner": (entry.uid, entry.gid),
            "size": entry.size,
            "sha256": entry.sha256,
            "target": entry.target,
            "mtime": entry.mtime,
            "device": entry.device,
            "xattrs": dict(entry.xattrs),
        }
        for entry in file_manifest(disk)
        if entry.path != "/lost+found"
    }


def mke2fs(path: Path, root: Path, *options: str, size: str = "64M") -> Disk:
    sh("mke2fs", "-q", "-F", *options, "-d", root, path, size)
    return qemuimg.as_disk(path, "raw")


@pytest.mark.parametrize(
    "options",
    [
        ["-t", "ext4"],
        ["-t", "ext4", "-b", "1024"],
        ["-t", "ext4", "-O", "inline_data", "-I", "512"],
        ["-t", "ext4", "-O", "meta_bg,^resize_inode", "-b", "1024", "-g", "1024"],
        ["-t", "ext4", "-O", "meta_bg,^resize_inode,^64bit", "-b", "1024", "-g", "1024"],
        ["-t", "ext4", "-O", "bigalloc", "-C", "16384"],
        ["-t", "ext4", "-O", "bigalloc", "-C", "65536", "-b", "4096"],
        ["-t", "ext4", "-b", "65536"],
        ["-t", "ext4", "-O", "^64bit,^metadata_csum,^flex_bg", "-O", "sparse_super2"],
        ["-t", "ext4", "-O", "ea_inode,large_dir,project,verity,encrypt,casefold"],
        ["-t", "ext3"],
        ["-t", "ext3", "-b", "1024", "-I", "256"],
        ["-t", "ext2", "-b", "1024", "-I", "128"],
    ],
    ids=" ".join,
)
def test_every_kind_of_ext(tmp_path: Path, tree: Path, options: list[str]) -> None:
    disk = mke2fs(tmp_path / "fs", tree, *options)
    found, wanted = listed(disk), expected(tree)
    assert found.keys() == wanted.keys()
    del found["/"], wanted["/"]  # mke2fs does not copy its mode and times
    if "inline_data" in options:  # mke2fs 1.47.0 writes these wrong; debugfs reads what we read
        del wanted["/sparse/holes"], wanted["/sparse/nothing"]
    assert {path: (found[path], wanted[path]) for path in wanted if found[path] != wanted[path]} == {}


def test_hashed_directories(tmp_path: Path, tree: Path) -> None:
    disk = mke2fs(tmp_path / "fs", tree, "-t", "ext4", "-b", "1024")
    subprocess.run(["e2fsck", "-fyD", disk.path], capture_output=True, check=False)
    assert "Index" in sh("debugfs", "-R", "stat /many", disk.path) or "0x81000" in sh("debugfs", "-R", "stat /many", disk.path)
    assert listed(disk).keys() == expected(tree).keys()


def test_the_order_is_that_of_path_components(tmp_path: Path, tree: Path) -> None:
    paths = [entry.path for entry in file_manifest(mke2fs(tmp_path / "fs", tree, "-t", "ext4"))]
    assert paths[0] == "/"
    assert paths == sorted(paths, key=lambda path: path.strip("/").split("/") if path != "/" else [])
    assert paths.index("/a/below") < paths.index("/a-b")


def test_what_debugfs_wrote_and_preallocated_blocks(tmp_path: Path, tree: Path) -> None:
    disk = mke2fs(tmp_path / "fs", tree, "-t", "ext4")
    commands = "fallocate /size-4096 1 5\nset_inode_field /size-4096 size 20000\nset_inode_field /size-4097 size 4294967\n"
    commands += "set_inode_field /size-1 mtime 0x7d000000\nset_inode_field /size-1 mtime_extra 2\n"
    sh("debugfs", "-w", "-f", "-", disk.path, input=commands)
    with open_root(disk) as root:
        assert root.read("/size-4096") == (tree / "size-4096").read_bytes() + bytes(20000 - 4096)
        data = root.read("/size-4097")
        assert data is not None
        assert root.tree.fs.inode(root.tree.listing("/")["size-1"]).mtime == 0x7D000000 + 2 * (1 << 32), "after 2242"
        assert (len(data), data[:4097]) == (4294967, (tree / "size-4097").read_bytes())


def test_features_that_nobody_knows_are_refused(tmp_path: Path, tree: Path) -> None:
    disk = mke2fs(tmp_path / "fs", tree / "empty", "-t", "ext4", size="8M")
    with disk.path.open("r+b") as file:
        file.seek(1024 + 0x60)
        (features,) = struct.unpack("<I", file.read(4))
        file.seek(1024 + 0x60)
        file.write(struct.pack("<I", features | 0x40000000 | 0x1))
    with pytest.raises(UnsupportedFilesystem, match="compression, 0x40000000") as caught:
        list(file_manifest(disk))
    assert caught.value.code == "disk.unsupported-filesystem"


def test_a_file_system_in_use_has_no_manifest_but_can_be_read(tmp_path: Path, tree: Path) -> None:
    disk = mke2fs(tmp_path / "fs", tree, "-t", "ext4")
    sh("debugfs", "-w", "-R", "feature needs_recovery", disk.path)
    with pytest.raises(NotUnmounted) as caught:
        list(file_manifest(disk))
    assert caught.value.code == "disk.not-unmounted"
    assert root_file(disk, "/hard-1") == b"linked"


def test_damage_is_an_error_and_nothing_else(tmp_path: Path, tree: Path) -> None:
    """Whatever bytes stand in the metadata: an UnsupportedFilesystem or a listing, never a crash or a hang."""
    disk = mke2fs(tmp_path / "fs", tree / "etc", "-t", "ext4", "-b", "1024", size="2M")
    good = disk.path.read_bytes()
    places = [place for place in range(1024, len(good)) if good[place]]
    rng = random.Random(3)
    refused = 0
    for _ in range(40):
        bad = bytearray(good)
        for _ in range(rng.randrange(1, 30)):
            bad[rng.choice(places)] = rng.randrange(256)
        disk.path.write_bytes(bad)
        try:
            list(file_manifest(disk))
        except UnsupportedFilesystem:
            refused += 1
    assert refused > 10


# --- whole disks ---------------------------------------------------------------------------------------------------------


def put(disk: Disk, part: Path, sector: int) -> None:
    sh("dd", f"if={part}", f"of={disk.path}", "bs=512", f"seek={sector}", "conv=notrunc,sparse", "status=none")


def system(tmp_path: Path, fstab: str) -> Disk:
    """A GPT disk with an ESP, a separate /srv and a root."""
    for name in (
        "root/etc",
        "root/usr/lib",
        "root/srv",
        "root/boot",
        "root/var/lib/dpkg/status.d",
        "root/lib/apk/db",
        "root/var/lib/rpm",
        "srv/www",
    ):
        (tmp_path / name).mkdir(parents=True)
    root = tmp_path / "root"
    (root / "etc/fstab").write_text(fstab)
    (root / "boot/vmlinuz-6.1.0-9-amd64").write_text("old kernel")
    (root / "boot/vmlinuz-6.1.0-18-amd64").write_text("new kernel")
    (root / "vmlinuz").symlink_to("boot/vmlinuz-6.1.0-9-amd64")
    (root / "etc/os-release").symlink_to("../usr/lib/os-release")
    (root / "etc/loop").symlink_to("loop")
    (root / "etc/absolute").symlink_to("/etc/../etc/os-release")
    (root / "usr/lib/os-release").write_text("ID=test\n")
    (tmp_path / "srv/www/page").write_text("hello")
    mke2fs(tmp_path / "p2", root, "-t", "ext4", "-L", "rootfs", "-U", "01234567-89ab-cdef-0123-456789abcdef", size="32M")
    mke2fs(tmp_path / "p3", tmp_path / "srv", "-t", "ext4", "-L", "data", "-U", "11234567-89ab-cdef-0123-456789abcdef", size="4M")
    disk = sfdisk(tmp_path / "disk", GPT + "3 : start=90112, size=8192\n")
    put(disk, tmp_path / "p2", 24576)
    put(disk, tmp_path / "p3", 90112)
    return disk


@pytest.mark.parametrize("device", ["LABEL=data", "UUID=11234567-89AB-cdef-0123-456789abcdef", "/dev/vda3", 'LABEL="data"'])
def test_mounted_partitions_are_in_the_tree(tmp_path: Path, device: str) -> None:
    disk = system(tmp_path, f"# a comment\nLABEL=rootfs / ext4 defaults 0 1\n{device}\t/srv ext4 defaults 0 2\nLABEL=x /y xfs d 0 0\n")
    paths = {entry.path for entry in file_manifest(disk)}
    assert {"/srv/www/page", "/etc/fstab"} <= paths
    assert root_file(disk, "/srv/www/page") == b"hello"


def test_files_by_path(tmp_path: Path) -> None:
    disk = system(tmp_path, "")
    assert "/srv/www/page" not in {entry.path for entry in file_manifest(disk)}
    for path in ("/etc/os-release", "/etc/absolute", "/usr/../etc/./os-release", "/../usr/lib/os-release"):
        assert root_file(disk, path) == b"ID=test\n", path
    for path in ("/etc/loop", "/etc", "/absent", "/etc/os-release/x"):
        assert root_file(disk, path) is None, path
    assert find_kernel(disk) == b"new kernel"


def test_package_lists(tmp_path: Path) -> None:
    disk = system(tmp_path, "")
    root = tmp_path / "root"
    status = """Package: nginx
Status: install ok installed
Architecture: amd64
Version: 1.22.1-9
Description: web server
 Package: not-this-one

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: half
Status: install ok half-configured
Version: 2
"""
    (root / "var/lib/dpkg/status").write_text(status)
    (root / "var/lib/dpkg/status.d/libc6").write_text("Package: libc6\nVersion: 2.36\nArchitecture: amd64\n")
    (root / "lib/apk/db/installed").write_text("C:Q1xx=\nP:musl\nV:1.2.4-r2\nA:x86_64\nF:lib\nR:ld.so\n\nP:zlib\nV:1.3\nA:x86_64\n\n")
    (root / "var/lib/rpm/rpmdb.sqlite").write_text("")
    mke2fs(tmp_path / "p2", root, "-t", "ext4", size="32M")
    put(disk, tmp_path / "p2", 24576)
    found = disk_packages(disk)
    assert found.packages == (
        Package("libc6", "2.36", "amd64", "deb"),
        Package("musl", "1.2.4-r2", "x86_64", "apk"),
        Package("nginx", "1.22.1-9", "amd64", "deb"),
        Package("zlib", "1.3", "x86_64", "apk"),
    )
    assert [reason.partition(" ")[0] for reason in found.unread] == ["/var/lib/rpm/rpmdb.sqlite"]
    assert not found.complete


def test_a_root_that_is_not_ext4_says_what_it_is(tmp_path: Path) -> None:
    disk = sfdisk(tmp_path / "disk", GPT)
    with disk.path.open("r+b") as file:
        file.seek(24576 * 512)
        file.write(b"XFSB")
    with open_raw(disk) as reader:
        assert [filesystem(reader, part) for part in partitions(reader)] == ["", "xfs", ""]
    with pytest.raises(UnsupportedFilesystem, match=r"\bxfs\b") as caught:
        list(file_manifest(disk))
    assert caught.value.code == "disk.unsupported-filesystem"
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/vmlinuz-1").write_text("k")
    mke2fs(tmp_path / "p", tmp_path / "boot", "-t", "ext4", size="8M")
    put(disk, tmp_path / "p", 4096)
    with pytest.raises(UnsupportedFilesystem, match=r"\bxfs\b"):
        list(file_manifest(disk))
    assert find_kernel(disk) is None
    with pytest.raises(UnsupportedFilesystem) as nothing:
        list(file_manifest(create_qcow2(tmp_path / "empty", MIB)))
    assert nothing.value.code == "disk.unsupported-filesystem"
