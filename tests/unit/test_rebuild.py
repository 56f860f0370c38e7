"""What a rebuild starts from: the bytes on record, and no others."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from baker.errors import HostError, NotFoundError
from baker.events import Null, Reporter
from baker.paths import Home
from baker.rebuilding import check_store
from baker.store.directory import DirectoryStore
from baker.sweep import sweep
from tests.unit.test_catalog import a_build, an_image


def test_every_changed_blob_is_named(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    disk, inputs, body = (store.add_bytes(data) for data in (b"disk", b"inputs", b"body"))
    build = replace(a_build(), evidence={"inputs": inputs, "body:00": body})
    image = replace(an_image("a00000000001"), chain=(disk,))
    check_store(image, build, store)
    for digest in (disk, body):
        store.path(digest).chmod(0o600)
        store.path(digest).write_bytes(b"other")
    with pytest.raises(HostError) as caught:
        check_store(image, build, store)
    assert f"disk 0 of image {image.id}: {disk}" in str(caught.value)
    assert f"evidence 'body:00' of build {build.id}: {body}" in str(caught.value)
    assert inputs not in str(caught.value)


def test_a_missing_blob_is_named(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    gone = store.add_bytes(b"gone")
    build = replace(a_build(), evidence={"inputs": gone})
    store.delete(gone)
    with pytest.raises(NotFoundError, match=gone):
        check_store(replace(an_image("a00000000001"), chain=()), build, store)


KILLED = """
import os, signal, sys
from pathlib import Path
from baker.ledger import Ledger
from baker.paths import Home
from baker.job import workplace
home = Home.from_environment({"BAKE_HOME": sys.argv[1]})
with workplace(home, Ledger(home.ledger)) as work:
    (work / "inputs").mkdir()
    (work / "inputs" / "secret").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_rebuild_left_is_swept(tmp_path: Path) -> None:
    home = Home.from_environment({"BAKE_HOME": str(tmp_path)})
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False).returncode == -9
    assert list(tmp_path.rglob("secret"))
    swept = sweep(home, Reporter(Null(), ""), builders=())
    assert [each.kind for each in swept] == ["directory"]
    assert not list((home.state / "builds").iterdir())
    assert not list(home.ledger.iterdir())
