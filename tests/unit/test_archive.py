"""Archives: the same records are the same bytes, everything comes in whole or not at all, and what was changed is named."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread

import pytest

from baker.api import Baker
from baker.catalog.records import ImageRecord, Rebuild, Revocation
from baker.core.errors import HostError, NotFoundError, UsageError
from baker.core.home import Home
from baker.disks import qemuimg
from baker.disks.raw import raw_digest
from baker.trust.attest.signing import attest
from baker.trust.attest.verify import verify
from tests.support.disks import create_qcow2
from tests.unit.test_catalog import a_build, an_image

AT = "2026-11-22T20:45:51Z"


def home(path: Path) -> Home:
    return Home.from_environment({"BAKE_HOME": str(path), "HOME": "/"})


@dataclass
class Made:
    """A home with `web` on `debian`, real disks, everything that can be on record of them; and its archive."""

    baker: Baker
    web: ImageRecord
    base: ImageRecord
    archive: Path


def disk(baker: Baker, scratch: Path, parent: str | None, content: bytes) -> str:
    below = baker.store.materialize([parent]) if parent else None
    path = scratch / "new.qcow2"
    made = qemuimg.create_overlay(below, path) if below else create_qcow2(path, 1 << 20)
    raw = scratch / "data"
    raw.write_bytes(content)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", f"write -s {raw} 65536 {len(content)}", made.path], check=True, capture_output=True)
    return baker.store.add_disk(made, parent)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """What `made` is a copy of: nobody may change it."""
    directory = tmp_path_factory.mktemp("prepared")
    with Baker(home(directory / "one"), env={}) as baker:
        evidence = {name: baker.store.add_bytes(name.encode()) for name in ("log", "inputs", "body:00")}
        images: list[ImageRecord] = []
        for number, name in enumerate(("debian", "web")):
            parent = images[-1] if images else None
            delta = disk(baker, directory, parent.chain[0] if parent else None, bytes([number + 1]) * 512)
            chain = (delta, *(parent.chain if parent else ()))
            identifier, build = f"a0000000000{number}", f"b0000000000{number}"
            image = an_image(identifier, name=name, parent=parent.id if parent else None, chain=chain, build=build)
            image = replace(image, digest=raw_digest(baker.store.materialize(chain)), virtual_size=1 << 20)
            baker.catalog.register(a_build(build, evidence=evidence), image)
            images.append(image)
        base, web = images
        baker.trust.keys.create("ci")
        attest(web, baker.trust)
        baker.catalog.rebuilds.add(Rebuild(web.id, 3, web.digest, baker.store.add_bytes(b"report"), {"name": "h"}, "me", AT))
        baker.catalog.revocations.add(Revocation(base.id, "CVE", "me", AT, "2099-01-01T00:00:00Z", descendants=True))
        written = baker.archives.write("web", directory)
    return Made(baker, web, base, written.path)


@pytest.fixture
def made(tmp_path: Path, prepared: Made) -> Made:
    shutil.copytree(prepared.archive.parent / "one", tmp_path / "one")
    return replace(prepared, baker=Baker(home(tmp_path / "one"), env={}), archive=Path(shutil.copy2(prepared.archive, tmp_path)))


@pytest.fixture
def other(tmp_path: Path) -> Baker:
    return Baker(home(tmp_path / "other"), env={})


def faults(baker: Baker) -> list[str]:
    checks = verify(baker.catalog.resolve("web"), baker.trust, at=AT)
    return [check.detail for check in checks if check.ok is False]


def blobs(baker: Baker) -> list[str]:
    return list(baker.store.digests())


def test_everything_comes_along_and_checks_out(made: Made, other: Baker) -> None:
    found = other.archives.read(made.archive, trust=True)
    assert [image.id for image in found.taken.images] == [made.base.id, made.web.id]
    assert other.catalog.history("a00000000001") == (made.web, made.base)
    assert other.catalog.build_of(made.web) == made.baker.catalog.build_of(made.web)
    assert other.catalog.proofs.rebuilds(made.web.id) == made.baker.catalog.proofs.rebuilds(made.web.id)
    revocation = other.catalog.revocations.of(made.web.id)
    assert revocation and revocation.inherited_from == made.base.id
    assert blobs(other) == blobs(made.baker)
    assert list(other.catalog.check_chain()) == []
    assert {entry.kind for entry in other.catalog.journal.entries()} == {"imported"}
    assert faults(other) == []
    assert [key.name for key in other.trust.keys.list()] == ["ci"]
    assert list(other.home.ledger.glob("*")) == [] and list((other.home.state / "builds").glob("*")) == []


def test_keys_are_trusted_only_when_asked(made: Made, other: Baker) -> None:
    found = other.archives.read(made.archive)
    assert [(signer.name, signer.trusted) for signer in found.signers] == [("ci", False)]
    assert other.trust.keys.list() == []


def test_once_more_changes_nothing_and_the_same_records_are_the_same_bytes(made: Made, other: Baker, tmp_path: Path) -> None:
    other.archives.read(made.archive, trust=True)
    entries = len(list(other.catalog.journal.entries()))
    assert other.archives.read(made.archive).taken.nothing
    assert len(list(other.catalog.journal.entries())) == entries
    again = other.archives.write("web", tmp_path / "again.bake")
    assert again.path.read_bytes() == made.archive.read_bytes()


def test_an_image_that_was_removed_here_comes_back(made: Made) -> None:
    made.baker.remove(["web"])
    assert not made.baker.store.has(made.web.chain[0])
    assert [image.id for image in made.baker.archives.read(made.archive).taken.images] == [made.web.id]
    assert made.baker.catalog.resolve("web").id == made.web.id
    assert faults(made.baker) == []


def test_a_blob_that_was_changed_here_is_mended(made: Made) -> None:
    path = made.baker.store.path(made.web.chain[0])
    path.chmod(0o600)
    path.write_bytes(b"other")
    made.baker.archives.read(made.archive)
    assert made.baker.store.verify(made.web.chain[0])


def test_a_name_that_means_another_disk_here_is_a_conflict(made: Made, other: Baker) -> None:
    other.catalog.register(a_build("c00000000000"), an_image("c00000000001", name="debian", parent=None, build="c00000000000"))
    with pytest.raises(UsageError, match=f"{made.base.name}@{made.base.version} is image c00000000001 here") as conflict:
        other.archives.read(made.archive)
    assert conflict.value.code == "import.name-conflict"
    assert blobs(other) == []
    other.archives.read(made.archive, beside=True)
    assert other.catalog.resolve("debian").id == made.base.id


def test_an_id_that_says_other_things_here_is_a_conflict(made: Made, other: Baker) -> None:
    other.catalog.register(a_build("b00000000001", who="somebody else"), None)
    with pytest.raises(UsageError, match="build b00000000001") as conflict:
        other.archives.read(made.archive, beside=True)
    assert conflict.value.code == "import.record-conflict"
    assert other.catalog.images() == []


def test_what_the_store_lacks_or_has_changed_is_not_archived(made: Made, tmp_path: Path) -> None:
    log = made.baker.catalog.build_of(made.web).evidence["log"]
    path = made.baker.store.path(log)
    path.chmod(0o600)
    path.write_bytes(b"LOG")
    with pytest.raises(HostError, match="evidence 'log' of build b0000000000. is " + log) as changed:
        made.baker.archives.write("web", tmp_path / "changed.bake")
    made.baker.store.delete(log)
    with pytest.raises(NotFoundError, match="\n  evidence 'log' of build b0000000000.: " + log) as missing:
        made.baker.archives.write("web", tmp_path / "missing.bake")
    assert (changed.value.code, missing.value.code) == ("store.blob-changed", "store.no-such-blob")
    assert [path.name for path in tmp_path.glob("*.bake*")] == [made.archive.name] and not list(tmp_path.glob(".*.part"))


Members = list[tuple[str, bytes]]


def rewritten(archive: Path, change: Callable[[Members], None]) -> Path:
    """The archive with its members changed by somebody who does not know better."""
    with tarfile.open(archive) as tar:
        members = [(info.name, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]
    change(members)
    with tarfile.open(archive, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return archive


def change_blob(members: Members) -> None:
    name, data = members[-1]
    members[-1] = (name, data[:-1] + bytes([data[-1] ^ 1]))


def change_records(members: Members) -> None:
    members[1] = (members[1][0], members[1][1].replace(b'"who":"me"', b'"who":"you"'))


def leave_out_a_blob_everywhere(members: Members) -> None:
    gone = members.pop()[0]
    manifest = json.loads(members[0][1])
    del manifest["members"][gone]
    members[0] = ("manifest.json", json.dumps(manifest).encode())


DAMAGED = "archive.damaged"
CHANGES: dict[str, tuple[Callable[[Members], object], str, str]] = {
    "a blob": (change_blob, DAMAGED, "blobs/sha256/[0-9a-f]{64} in it was changed"),
    "records": (change_records, DAMAGED, "records.json in it was changed"),
    "one less": (lambda members: members.pop(), DAMAGED, "ends before blobs/sha256/"),
    "one less, and the manifest says so": (leave_out_a_blob_everywhere, DAMAGED, "lacks .*sha256:[0-9a-f]{64}"),
    "one more": (lambda members: members.append(("../../etc/passwd", b"x")), DAMAGED, "etc/passwd"),
    "another order": (lambda members: members.reverse(), DAMAGED, "manifest.json"),
    "another file": (lambda members: members.__setitem__(0, ("manifest.json", b"[]")), "archive.invalid", "web"),
}


@pytest.mark.parametrize(("change", "code", "fact"), CHANGES.values(), ids=CHANGES)
def test_a_changed_archive_leaves_nothing(made: Made, other: Baker, change: Callable[[Members], object], code: str, fact: str) -> None:
    with pytest.raises(HostError, match=fact) as failure:
        other.archives.read(rewritten(made.archive, change))  # type: ignore[arg-type]
    assert failure.value.code == code
    assert other.catalog.images() == [] and blobs(other) == [] and list(other.home.ledger.glob("*")) == []


@pytest.mark.parametrize("part", [0, 0.001, 0.5, 0.9])
def test_an_archive_that_is_cut_off_is_refused(made: Made, other: Baker, part: float) -> None:
    data = made.archive.read_bytes()
    made.archive.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(HostError, match=r"web-1\.4\.0\.bake is not a bake archive, or it is incomplete") as failure:
        other.archives.read(made.archive)
    assert failure.value.code == "archive.invalid"
    assert other.catalog.images() == [] and blobs(other) == []


def test_an_archive_has_only_files(made: Made, other: Baker) -> None:
    link = tarfile.TarInfo("manifest.json")
    link.type, link.linkname = tarfile.LNKTYPE, "/etc/passwd"
    with tarfile.open(made.archive, "w") as tar:
        tar.addfile(link)
    with pytest.raises(HostError, match="is a hard link") as failure:
        other.archives.read(made.archive)
    assert failure.value.code == "archive.invalid"


def test_a_file_that_is_no_tar_archive_is_refused(made: Made, other: Baker) -> None:
    made.archive.write_bytes(b"bytes of something else\n" * 1000)
    with pytest.raises(HostError, match="is not a bake archive") as failure:
        other.archives.read(made.archive)
    assert failure.value.code == "archive.invalid"


def test_a_blob_that_does_not_fit_the_disk_is_refused_before_it_is_written(made: Made, other: Baker) -> None:
    size = 1 << 50
    with tarfile.open(made.archive) as tar:
        *members, (last, _) = [(info.name, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]
    manifest = json.loads(members[0][1])
    manifest["members"][last]["size"] = size
    members[0] = ("manifest.json", json.dumps(manifest).encode())
    with tarfile.open(made.archive, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        info = tarfile.TarInfo(last)
        info.size = size
        tar.addfile(info)
    with pytest.raises(HostError, match="no space left") as failure:
        other.archives.read(made.archive)
    assert failure.value.code == "host.disk-full"
    assert other.catalog.images() == [] and blobs(other) == []


def test_an_archive_comes_through_a_pipe(made: Made, other: Baker, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = Thread(target=pipe.write_bytes, args=(made.archive.read_bytes(),), daemon=True)
    writer.start()
    assert len(other.archives.read(pipe).taken.images) == 2
    writer.join(60)


def test_a_disk_that_stands_on_a_file_of_this_host_is_refused(made: Made, other: Baker, tmp_path: Path) -> None:
    """Whoever makes an archive by hand gets its digests right, but reads no file of whoever takes it in."""
    secret = tmp_path / "secret.qcow2"
    create_qcow2(secret, 1 << 20)
    evil = made.baker.store.add_bytes(qemuimg.create_overlay(qemuimg.as_disk(secret, "qcow2"), tmp_path / "evil.qcow2").path.read_bytes())
    image = replace(made.base, id="e00000000000", name="evil", chain=(evil,), build="e00000000001")
    made.baker.catalog.register(a_build("e00000000001", evidence={}), image)
    written = made.baker.archives.write("evil", tmp_path)
    with pytest.raises(HostError, match=f"{evil} .*secret.qcow2") as failure:
        other.archives.read(written.path)
    assert failure.value.code == "archive.backing-file"
    assert other.catalog.images() == [] and blobs(other) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from baker.api import Baker
from baker.core.events import Progress
from baker.core.home import Home
class Killer:
    def emit(self, event):
        if isinstance(event, Progress) == (sys.argv[3] == "reading"):
            os.kill(os.getpid(), signal.SIGKILL)
with Baker(Home.from_environment({"BAKE_HOME": sys.argv[1], "HOME": "/"}), sink=Killer(), env={}) as baker:
    baker.archives.read(Path(sys.argv[2]))
"""


@pytest.mark.parametrize("moment", ["reading", "checking"])
def test_kill_9_leaves_nothing_that_is_wrong(made: Made, other: Baker, moment: str) -> None:
    argv = [sys.executable, "-c", KILLED, str(other.home.data.parent), str(made.archive), moment]
    assert subprocess.run(argv, check=False).returncode == -signal.SIGKILL
    assert other.catalog.images() == []
    other.sweep()
    assert blobs(other) == [] and list((other.home.state / "builds").glob("*")) == [] and list(other.home.ledger.glob("*")) == []
    assert len(other.archives.read(made.archive).taken.images) == 2


def test_a_home_that_has_gone_can_be_made_anew(made: Made, tmp_path: Path) -> None:
    made.baker.catalog.close()
    shutil.rmtree(tmp_path / "one")
    with Baker(home(tmp_path / "one"), env={}) as baker:
        baker.archives.read(made.archive, trust=True)
        assert faults(baker) == []
