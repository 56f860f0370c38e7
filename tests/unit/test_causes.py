"""Why a rebuilt file differs: one accident of each kind, made by the program that makes it in a build."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Sequence

import pytest

from baker.artifacts.trees import compare_trees
from baker.core.model import FileEntry, Package, PackageList
from baker.rebuild import causes
from baker.rebuild.levels import Level, level_of

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n"


def tarred(names: Sequence[str], mtime: int) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(name), mtime
            tar.addfile(info, io.BytesIO(name.encode()))
    return packed.getvalue()


def zipped(names: Sequence[str], year: int) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name in names:
            file.writestr(zipfile.ZipInfo(name, (year, 1, 2, 3, 4, 6)), name)
    return packed.getvalue()


CASES = {
    "pyc": ("/opt/a/__pycache__/a.cpython-311.pyc", b"\xa7\r\r\n1111", b"\xa7\r\r\n2222", causes.BYTECODE),
    "gzip": ("/usr/share/doc/a.gz", gzip.compress(b"text", mtime=1), gzip.compress(b"text", mtime=2), causes.GZIP_TIME),
    "tar times": ("/srv/a.tar", tarred("ab", 1), tarred("ab", 2), causes.ARCHIVE_TIME),
    "tar order": ("/srv/a.tar", tarred("ab", 1), tarred("ba", 1), causes.ARCHIVE_ORDER),
    "tar.gz order": ("/srv/a.tgz", gzip.compress(tarred("ab", 1), mtime=1), gzip.compress(tarred("ba", 1), mtime=2), causes.ARCHIVE_ORDER),
    "zip times": ("/srv/a.zip", zipped("ab", 2025), zipped("ab", 2026), causes.ARCHIVE_TIME),
    "zip order": ("/srv/a.jar", zipped("ab", 2025), zipped("ba", 2025), causes.ARCHIVE_ORDER),
    "iso date": ("/etc/built", b"built 2026-11-25T22:31:28Z\n", b"built 2026-11-26T01:00:00Z\n", causes.TIMESTAMP),
    "date(1)": ("/etc/built", b"Wed Nov 25 22:31:28 UTC 2026\n", b"Thu Nov 26 01:00:00 UTC 2026\n", causes.TIMESTAMP),
    "epoch": ("/etc/built", b"at=1795645888\n", b"at=1795650000\n", causes.TIMESTAMP),
    "key": ("/etc/ssh/host_key", KEY.format("AAAA").encode(), KEY.format("BBBB").encode(), causes.RANDOM_KEY),
    "uuid": ("/etc/id", b"7f0c1a52-58f1-4f0e-9f4c-8dd8b0a3a111\n", b"0a9e77aa-1b2c-4d3e-8f90-aabbccddeeff\n", causes.RANDOM_ID),
    "line order": ("/etc/list", b"one\ntwo\n", b"two\none\n", causes.LINE_ORDER),
    "log": ("/opt/a/install.log", b"10:01:02 installed in 3.5s\n", b"11:30:44 installed in 2.0s\n", causes.LOG),
    "log that says other things": ("/opt/a/install.log", b"installed a\n", b"installed b\n", causes.OTHER),
    "log with a random id": ("/opt/a/install.log", b"id 0123456789abcdef0\n", b"id fedcba9876543210a\n", causes.RANDOM_ID),
    "anything in /var/log": ("/var/log/a", b"x", b"y", causes.LOG),
    "another": ("/etc/a", b"red\n", b"blue\n", causes.OTHER),
    "broken gzip": ("/srv/a.gz", b"\x1f\x8bxx", b"\x1f\x8byy", causes.OTHER),
    "broken tar": ("/srv/a.tar", b"\0" * 257 + b"ustar1", b"\0" * 257 + b"ustar2", causes.OTHER),
}


def entry(path: str, data: bytes = b"", mtime: int = 0) -> FileEntry:
    return FileEntry(path=path, mode=0o100644, uid=0, gid=0, size=len(data), mtime=mtime, sha256=hashlib.sha256(data).hexdigest())


def explained(old: dict[str, bytes], new: dict[str, bytes]) -> dict[str, list[str]]:
    """cause -> paths"""
    found = compare_trees([entry(*item) for item in old.items()], [entry(*item) for item in new.items()])
    return {group.cause.name: [each.path for each in group.differences] for group in causes.explain(found, old.get, new.get)}


@pytest.mark.parametrize(("path", "before", "after", "cause"), CASES.values(), ids=CASES)
def test_an_accident_is_named(path: str, before: bytes, after: bytes, cause: causes.Cause) -> None:
    assert explained({path: before}, {path: after}) == {cause.name: [path]}
    assert cause.remedy


def test_a_file_of_mktemp_is_one_accident_and_not_two() -> None:
    assert explained({"/opt/tmp.Xa81kQzP2b": b"same"}, {"/opt/tmp.9sKw0LmN1c": b"same"}) == {
        "random-name": ["/opt/tmp.9sKw0LmN1c", "/opt/tmp.Xa81kQzP2b"]
    }


def test_a_file_that_only_one_side_has_is_no_renamed_one() -> None:
    assert explained({"/opt/tmp.Xa81kQzP2b": b"one"}, {"/opt/tmp.9sKw0LmN1c": b"two"}) == {
        "other": ["/opt/tmp.9sKw0LmN1c", "/opt/tmp.Xa81kQzP2b"]
    }


def test_only_a_time() -> None:
    found = compare_trees([entry("/a", b"x", 1)], [entry("/a", b"x", 2)])
    assert [group.cause for group in causes.explain(found, lambda _: b"x", lambda _: b"x")] == [causes.TIME_ONLY]
    assert level_of(inputs=True, packages=(PackageList(), PackageList()), differences=found, disks=("a", "b")) == Level.TREE


def test_a_change_of_content_is_no_same_tree() -> None:
    found = compare_trees([entry("/a", b"x")], [entry("/a", b"y")])
    assert found[0].what == ("content",)
    assert level_of(inputs=True, packages=(PackageList(), PackageList()), differences=found, disks=("a", "b")) == Level.PACKAGES


LIST = PackageList((Package("nginx", "1"),))
UNREAD = PackageList((Package("nginx", "1"),), ("the RPM database cannot be read",))


@pytest.mark.parametrize(
    "packages, differ, disks, level",
    [
        ((LIST, LIST), True, "ab", Level.PACKAGES),
        ((LIST, PackageList((Package("nginx", "2"),))), True, "ab", Level.INPUTS),
        ((UNREAD, UNREAD), True, "ab", Level.INPUTS),
        ((PackageList(unread=("x",)), PackageList(unread=("x",))), True, "ab", Level.INPUTS),
        ((LIST, UNREAD), True, "ab", Level.INPUTS),
        ((UNREAD, UNREAD), False, "ab", Level.TREE),
        ((UNREAD, UNREAD), False, "aa", Level.DISK),
        ((LIST, LIST), None, "ab", Level.PACKAGES),
        ((UNREAD, UNREAD), None, "ab", Level.INPUTS),
        ((UNREAD, UNREAD), None, "aa", Level.DISK),
    ],
)
def test_packages_that_are_not_known_are_not_the_same_packages(
    packages: tuple[PackageList, PackageList], differ: bool | None, disks: str, level: Level
) -> None:
    found = None if differ is None else compare_trees([entry("/a", b"x")], [entry("/a", b"y" if differ else b"x")])
    assert level_of(inputs=True, packages=packages, differences=found, disks=(disks[0], disks[1])) == level
