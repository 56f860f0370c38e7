"""What a rebuild starts from: the bytes on record, and no others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from baker.catalog.catalog import Catalog
from baker.core.errors import HostError, NotFoundError, StepError, UsageError
from baker.core.events import BuildFinished, Memory, Null, Reporter
from baker.core.home import Home
from baker.publish.archive.service import Archives
from baker.rebuild.levels import Level
from baker.rebuild.rebuild import RebuildOutcome, Request, check_store, rebuild_and_record
from baker.store.directory import DirectoryStore
from baker.trust.attest.keys import Keys
from baker.upkeep.sweep import sweep
from tests.support.workshop import Workshop, open_workshop
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
from baker.core.ledger import Ledger
from baker.core.home import Home
from baker.core.leases import FileLeases
from baker.core.workspace import workplace
home = Home.from_environment({"BAKE_HOME": sys.argv[1]})
with workplace(home, FileLeases(home.state), Ledger(home.ledger)) as work:
    (work / "inputs").mkdir()
    (work / "inputs" / "secret").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_rebuild_left_is_swept(tmp_path: Path) -> None:
    home = Home.from_environment({"BAKE_HOME": str(tmp_path)})
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False).returncode == -9
    assert list(tmp_path.rglob("secret"))
    swept = sweep(home, Catalog(home.catalog), Reporter(Null(), ""), builders=())
    assert [each.kind for each in swept] == ["directory"]
    assert not list((home.state / "builds").iterdir())
    assert not list(home.ledger.iterdir())


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    with open_workshop(tmp_path) as made:
        yield made


def again(workshop: Workshop, *, key: bytes = b"k" * 32, heard: Memory | None = None, **secrets: str) -> RebuildOutcome:
    image = workshop.catalog.images("web")[0]
    workshop.builder.events.clear()
    return rebuild_and_record(Request(image, workshop.catalog.build_of(image), secrets, key), workshop.services(heard or Memory()))


def test_what_was_not_all_recorded_is_proven_by_no_rebuild(workshop: Workshop) -> None:
    workshop.env, workshop.builder.no_way = {}, "no proxy today"
    workshop.bake("step-1")
    assert "downloads of the steps are not recorded: no proxy today" in workshop.said
    workshop.env, workshop.builder.no_way = {"BAKE_HTTP_CACHE": "0"}, ""
    verdict = again(workshop)
    assert verdict.level == Level.NONE
    assert any("not all inputs are on record" in reason for reason in verdict.reasons)


def test_a_rebuild_is_on_record_and_is_no_build(workshop: Workshop) -> None:
    workshop.bake("step-1", "step-2")
    builds, layers = workshop.catalog.builds(), workshop.kept()
    (workshop.directory / "web.yaml").unlink()
    verdict = again(workshop)
    assert verdict.level == Level.DISK
    assert [event for event in workshop.builder.events if not event.startswith("launch")] == [], "no layer is used, and none is made"
    assert (workshop.catalog.builds(), workshop.kept(), workshop.left()) == (builds, layers, [])
    image = workshop.catalog.images("web")[0]
    (row,) = workshop.catalog.proofs.rebuilds(image.id)
    assert (row.level, row.disk) == (3, image.digest)
    report = json.loads(workshop.services(Memory()).store.path(row.report).read_bytes())
    assert (report["image"], report["words"]) == (image.id, "the same disk")
    assert row.report in workshop.catalog.referenced_digests()
    assert list(workshop.catalog.check_chain()) == []
    assert [entry.kind for entry in workshop.catalog.journal.entries("rebuild:1")] == ["rebuild"]


def test_a_rebuild_that_fails_leaves_nothing(workshop: Workshop) -> None:
    workshop.bake("step-1", "step-2")
    before = workshop.catalog.last_planned("web")
    workshop.guests.fails.add("step-2")
    heard = Memory(only=BuildFinished)
    with pytest.raises(StepError):
        again(workshop, heard=heard)
    assert [(event.status, event.logged) for event in heard.events if isinstance(event, BuildFinished)] == [("failed", False)]
    assert workshop.catalog.last_planned("web") == before
    assert len(workshop.catalog.builds()) == 1
    assert workshop.catalog.proofs.rebuilds(workshop.catalog.images("web")[0].id) == []
    assert workshop.left() == [] and not list((workshop.home.state / "builds").glob("*"))


def test_secret_values_are_asked_for_and_another_home_has_another_key_for_them(workshop: Workshop, tmp_path: Path) -> None:
    more = "variables: {token: {default: hush-hush, sensitive: true}}\n"
    workshop.bake("step-1 ${{ var.token }}", more=more)
    with pytest.raises(UsageError, match="token") as caught:
        again(workshop)
    assert caught.value.code == "rebuild.secrets-missing"
    assert again(workshop, token="hush-hush").level == Level.DISK
    other = again(workshop, token="another one")
    assert other.level == Level.NONE and "step 1" in other.reasons[0]

    archive = Archives(workshop.services(Memory()), Keys(workshop.home.data / "keys", {})).write("web", tmp_path)
    elsewhere = replace(workshop, home=Home.from_environment({"BAKE_HOME": str(tmp_path / "elsewhere"), "HOME": "/"}))
    elsewhere.catalog = Catalog(elsewhere.home.catalog)
    Archives(elsewhere.services(Memory()), Keys(elsewhere.home.data / "keys", {})).read(archive.path)
    key = b"another home's key, of thirty-two"
    assert again(elsewhere, key=key, token="hush-hush").level == Level.DISK


def test_packages_that_nobody_could_read_are_not_the_same_packages(workshop: Workshop) -> None:
    """The disk of the workshop is blank: its files and its packages cannot be read, so that only the same disk says anything."""
    workshop.bake("step-1")
    image = workshop.catalog.images("web")[0]
    other = replace(image, digest="sha256:" + "0" * 64)
    outcome = rebuild_and_record(Request(other, workshop.catalog.build_of(image), {}, b"k" * 32), workshop.services(Memory()))
    assert outcome.level == Level.INPUTS and outcome.packages == ()
    assert any(reason.startswith("packages were not compared") and "no file system" in reason for reason in outcome.reasons)
