"""Archives from strangers: what bake writes comes back as it was, and nothing else gets anywhere."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from baker.core.tar_reader import LARGEST_PAX, TarError, TarReader, extract

BUDGET = 1 << 20


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, target, mode, len(data)
    return info, data


def packed(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:  # noqa: A002 - tarfile's word
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def unpacked(data: bytes, directory: Path, budget: int = BUDGET) -> None:
    directory.mkdir(exist_ok=True)
    extract(TarReader(io.BytesIO(data), budget=budget), directory)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    deep = "/".join(["näme" * 12] * 5)
    data = packed(
        member("top", kind=tarfile.DIRTYPE, mode=0o555),
        member("top/script", b"x" * 1000, mode=0o4755),
        member("top/empty"),
        member(deep, b"deep"),
        member("top/link", kind=tarfile.SYMTYPE, target="script"),
        member("up", kind=tarfile.SYMTYPE, target="top/../top/empty"),
        member("a\udcff", b"not UTF-8"),
    )
    out = tmp_path / "out"
    unpacked(data, out)
    assert (out / "top/script").read_bytes() == b"x" * 1000
    assert stat.S_IMODE((out / "top/script").stat().st_mode) == 0o4755
    assert stat.S_IMODE((out / "top").stat().st_mode) == 0o755, "its owner can remove it again"
    assert (out / "top/empty").read_bytes() == b""
    assert (out / deep).read_bytes() == b"deep"
    assert (out / "top/link").readlink() == Path("script")
    assert (out / "up").readlink() == Path("top/../top/empty")
    assert (out / "a\udcff").read_bytes() == b"not UTF-8"


HOSTILE: dict[str, Callable[[Path], bytes]] = {
    "up": lambda aim: packed(member("../escaped", b"x")),
    "up inside": lambda aim: packed(member("a/../../escaped", b"x")),
    "absolute": lambda aim: packed(member(f"{aim}/escaped", b"x")),
    "through a link to the outside": lambda aim: packed(member("x", kind=tarfile.SYMTYPE, target=str(aim)), member("x/escaped", b"x")),
    "link after its file": lambda aim: packed(member("x/escaped", b"x"), member("x", kind=tarfile.SYMTYPE, target=str(aim))),
    "link that leads up": lambda aim: packed(member("a/x", kind=tarfile.SYMTYPE, target="../../outside")),
    "link that leads up and back": lambda aim: packed(member("x", kind=tarfile.SYMTYPE, target="../out/x")),
    "link without a target": lambda aim: packed(member("x", kind=tarfile.SYMTYPE, target="")),
    "link below a link": lambda aim: packed(
        member("a/b", b"x"), member("l", kind=tarfile.SYMTYPE, target="a"), member("l/escaped", kind=tarfile.SYMTYPE, target="b")
    ),
    "hard link": lambda aim: packed(member("x", kind=tarfile.LNKTYPE, target="/etc/passwd")),
    "device": lambda aim: packed(member("x", kind=tarfile.CHRTYPE)),
    "pipe": lambda aim: packed(member("x", kind=tarfile.FIFOTYPE)),
    "twice": lambda aim: packed(member("x", b"1"), member("x", b"2")),
    "file for a directory": lambda aim: packed(member("x", b"1"), member("x/y", b"2")),
    "no name": lambda aim: packed(member(".", b"1")),
    "long part": lambda aim: packed(member("n" * 256, b"1")),
    "long name": lambda aim: packed(member("n/" * 2100 + "x", b"1")),
    "GNU long name": lambda aim: packed(member("n" * 120, b"1"), format=tarfile.GNU_FORMAT),
    "sparse": lambda aim: sparse(),
    "larger than the budget": lambda aim: packed(member("x", b"x" * (BUDGET + 1))),
    "together larger than the budget": lambda aim: packed(member("x", b"x" * BUDGET), member("y", b"y")),
    "claims 1 TiB": lambda aim: huge(),
    "large pax header": lambda aim: pax_header(b"31 " + b"1" * 200_000),
    "pax record without an end": lambda aim: pax_header(b"30 path=x\n"),
    "pax record of no length": lambda aim: pax_header(b"0 path=x\n"),
    "pax size that is no number": lambda aim: pax_header(b"12 size=-1x\n"),
    "cut off in a header": lambda aim: packed(member("x", b"1"))[:200],
    "cut off in a file": lambda aim: packed(member("x", b"1" * 2000))[:1500],
    "without an end": lambda aim: packed(member("x", b"1"))[:1024],
    "wrong checksum": lambda aim: b"y" + packed(member("x", b"1"))[1:],
    "something behind its end": lambda aim: packed(member("x", b"1")) + packed(member("y", b"2")),
    "no archive": lambda aim: b"#!/bin/sh\n" * 100,
    "nothing": lambda aim: b"",
}


def sparse() -> bytes:
    info, data = member("x", b"1\n0\n0\n" + bytes(506))
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x", "GNU.sparse.realsize": str(1 << 40)}
    return packed((info, data))


def huge() -> bytes:
    info, _ = member("x")
    info.size = 1 << 40
    return info.tobuf(tarfile.PAX_FORMAT)


def pax_header(body: bytes) -> bytes:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(body)
    return info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512) + packed(member("x", b"1"))


@pytest.mark.parametrize("case", HOSTILE)
def test_what_does_not_belong_in_an_archive_is_refused_and_writes_nothing_elsewhere(case: str, tmp_path: Path) -> None:
    aim = tmp_path / "aim"
    aim.mkdir()
    with pytest.raises(TarError) as caught:
        unpacked(HOSTILE[case](aim), tmp_path / "out")
    assert caught.value.code.startswith("archive.")
    assert sorted(os.listdir(tmp_path)) == ["aim", "out"] and not list(aim.iterdir())
    written = sum(path.lstat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert written <= BUDGET


def test_a_pax_header_of_the_largest_size_is_read() -> None:
    record = b"20 comment=aaaaaaaa\n"
    records = record * (LARGEST_PAX // len(record))
    assert [each.name for each in TarReader(io.BytesIO(pax_header(records)), budget=BUDGET)] == ["x"]


def test_what_was_not_read_of_a_file_is_skipped() -> None:
    tar = TarReader(io.BytesIO(packed(member("a", b"a" * 3000), member("b", b"b"))), budget=BUDGET)
    first = tar.next()
    assert first is not None and tar.read(10) == b"a" * 10
    second = tar.next()
    assert second is not None and (second.name, tar.read()) == ("b", b"b")
    assert tar.next() is None
