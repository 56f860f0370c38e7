"""Which step changed what: builds on fakes whose guests really change an ext4 disk, by debugfs."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from baker.artifacts import changes
from baker.artifacts.changes import Change
from baker.artifacts.codecs import read_text
from baker.build import test_run
from baker.catalog.records import ImageRecord
from baker.core.errors import NotFoundError, UsageError
from baker.core.home import ensure
from baker.core.model import Disk
from baker.disks import qemuimg
from baker.disks.rootfs import open_root
from baker.explain.diff import compare
from baker.explain.why import why
from baker.machines.identity import make_identity
from baker.machines.ssh.communicator import CommandResult
from baker.plan.requests import BuildOptions
from baker.rebuild.rebuild import Request, rebuild
from baker.sessions.commit import CommitOptions, commit, take
from baker.sessions.diff_sides import side
from baker.sessions.running import Shell
from baker.store.directory import DirectoryStore
from baker.trust.attest.keys import Keys
from baker.trust.attest.signing import TrustContext
from baker.trust.audit.attestations import checker
from baker.trust.audit.story import gather
from tests.support.fake_builder import FACTS
from tests.support.fakes import Call
from tests.support.until import until
from tests.unit.test_layers import Workshop, shop  # noqa: F401 - a fixture


def sh(*argv: str | Path, input: str | None = None) -> str:  # noqa: A002 - subprocess's own word
    return subprocess.run([*map(str, argv)], check=True, capture_output=True, text=True, input=input).stdout


# a kernel gives every new file another generation and its times nanoseconds; debugfs does neither
MARK = "set_inode_field {} generation {{number}}"
DOES = {
    "step-1": [
        "cd /etc",
        "write {here}/one made",
        MARK.format("/etc/made"),
        "rm old",
        "set_inode_field /etc/kept mode 0100600",
        "set_inode_field /etc/kept ctime 20260101",
    ],
    "step-2": ["cd /etc", "rm made", "write {here}/two made", MARK.format("/etc/made"), "mkdir conf.d", "cd conf.d", "write {here}/one a"],
    "step-4": ["cd /etc", "rm count", "write {here}/count count", MARK.format("/etc/count")],
    "step-3": ["cd /etc", "rm passing", "write {here}/two late"],
}


class Guests:
    """FakeGuests whose steps do what DOES says."""

    def __init__(self, below: Any, here: Path) -> None:
        self._below, self._here = below, here

    def __call__(self, endpoint: Any, identity: Any, machine: Any, scratch: Path, **more: Any) -> Any:
        entered = self._below(endpoint, identity, machine, scratch, **more)
        here = self._here

        class Around:
            def __enter__(self) -> Any:
                communicator = entered.__enter__()
                old = communicator.answers["step-"]

                def step(call: Call) -> CommandResult:
                    name = next(name for name in DOES if name in call.script)
                    edit(machine.disk, [line.format(here=here, number=time.monotonic_ns() % 2**31) for line in DOES[name]], here)
                    return old(call)

                communicator.answers["step-"] = step
                return communicator

            def __exit__(self, *error: Any) -> Any:
                return entered.__exit__(*error)

        return Around()


def edit(disk: Disk, commands: list[str], here: Path) -> None:
    """Change a qcow2 overlay's file system from outside: its backing reference stays."""
    (here / "count").write_text(str(time.monotonic_ns()))
    raw, named = here / "edit.raw", disk.path.parent / (qemuimg.info(disk.path, "qcow2").backing or "")
    until(named.exists, 30, "the layer has its name, which it gets once it is whole")
    qemuimg.convert(disk, raw, "raw")
    sh("debugfs", "-w", "-f", "-", raw, input="\n".join(commands))
    below = qemuimg.info(disk.path, "qcow2")
    disk.path.unlink()
    sh("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk.path)
    sh("qemu-img", "rebase", "-u", "-F", below.backing_format or "", "-b", below.backing or "", "-f", "qcow2", disk.path)


@pytest.fixture
def work(shop: Workshop, tmp_path: Path) -> Iterator[Workshop]:  # noqa: F811
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "usr").mkdir()
    for name in ("old", "kept", "passing", "never"):
        (root / "etc" / name).write_text(f"this is {name}\n")
    (tmp_path / "one").write_text("one\n")
    (tmp_path / "two").write_text("two\n")
    sh("mke2fs", "-q", "-F", "-t", "ext4", "-d", root, tmp_path / "fs", "16M")
    (tmp_path / "disk.qcow2").unlink()
    sh("qemu-img", "convert", "-f", "raw", "-O", "qcow2", tmp_path / "fs", tmp_path / "disk.qcow2")
    shop.guests = Guests(shop.guests, tmp_path)  # type: ignore[assignment]
    yield shop


def changed(work: Workshop, image: ImageRecord | None) -> dict[str, Change]:
    assert image is not None
    build = work.catalog.build_of(image)
    with DirectoryStore(work.home.blobs).open(build.evidence["changes"]) as blob:
        return {each.path: each for each in changes.read(blob)}


WANTED = {
    "/etc/old": ("removed", 1), "/etc/kept": ("changed", 1), "/etc/made": ("added", 2), "/etc/conf.d": ("added", 2),
    "/etc/conf.d/a": ("added", 2), "/etc/passing": ("removed", 3), "/etc/late": ("added", 3),
}  # fmt: skip


def test_each_path_has_the_step_that_touched_it_last(work: Workshop) -> None:
    image = work.bake().image
    found = changed(work, image)
    assert {path: (each.change, each.step) for path, each in found.items() if path != "/etc"} == WANTED
    made = found["/etc/made"].after
    assert made and made.size == 4 and len(made.sha256) == 64
    gone = found["/etc/passing"].before
    assert gone and gone.size == len("this is passing\n") and len(gone.sha256) == 64


def test_steps_of_a_layer_bring_along_what_they_changed(work: Workshop) -> None:
    work.bake()
    image = work.bake("step-1", "step-2", "step-3; true").image
    assert work.cached == [1, 2]
    assert {path: (each.change, each.step) for path, each in changed(work, image).items() if path != "/etc"} == WANTED


def test_where_machines_cannot_stand_still_nothing_is_guessed(work: Workshop) -> None:
    work.builder.can_still = False
    image = work.bake().image
    assert image is not None
    assert "changes" not in work.catalog.build_of(image).evidence
    assert work.builder.stood_still == 0


def test_a_disk_that_nobody_can_read_is_said_in_the_log(shop: Workshop) -> None:  # noqa: F811
    image = shop.bake().image
    assert image is not None
    assert "changes" not in shop.catalog.build_of(image).evidence
    assert "changes of each step are not recorded" in shop.said


def test_why_names_the_step(work: Workshop) -> None:
    image = work.bake().image
    assert image is not None
    store = DirectoryStore(work.home.blobs)

    def asked(path: str) -> tuple[str, str | None]:
        reason = why(work.catalog, store, image, path)
        return reason.change, reason.step.name if reason.step else None

    steps = [step.name for step in work.catalog.build_of(image).steps]
    assert asked("/etc/made") == ("added", steps[1])
    assert asked("etc/passing") == ("removed", steps[2])
    assert asked("/etc/never") == ("added", None)
    with pytest.raises(NotFoundError) as error:
        asked("/etc/nevr")
    assert "/etc/never" in str(error.value)


# --- trying a template twice ------------------------------------------------------------------------------------------


def tried(work: Workshop, *steps: str) -> list[tuple[str, int]]:
    found = test_run.test(work.template(*steps), BuildOptions(force=True), work.services(work.heard), idempotent=True)
    return [(each.path, each.step) for each in found]


def test_steps_that_do_the_same_twice_are_idempotent(work: Workshop) -> None:
    assert tried(work, "step-1", "step-2") == []
    assert work.catalog.images() == []
    assert work.left() == []


def test_what_a_second_run_changes_is_told_with_its_step(work: Workshop) -> None:
    assert tried(work, "step-1", "step-4") == [("/etc/count", 2)]


# --- images made by hand ----------------------------------------------------------------------------------------------


@pytest.fixture
def shell(work: Workshop, tmp_path: Path) -> Shell:
    """Somebody is in a machine of an image, and has written a file and removed another."""
    image = work.bake().image
    assert image is not None
    below = qemuimg.as_disk(DirectoryStore(work.home.blobs).path(image.chain[0]), "qcow2")
    scratch = ensure(work.home.work("0123456789ab"))
    make_identity(scratch, "web", "root")
    disk = qemuimg.create_overlay(below, scratch / "disk.qcow2")
    edit(disk, ["cd /etc", f"write {tmp_path}/two hotfix", "rm never"], tmp_path)
    made = Shell("0123456789ab", image.id, disk.path, below.virtual_size, ("true",))
    (scratch / "shell.json").write_text(json.dumps(asdict(made), default=str))
    return made


def test_a_changed_shell_becomes_an_image_that_says_so(work: Workshop, shell: Shell) -> None:
    before = shell.disk.read_bytes()
    with take(work.services(work.heard), shell.id) as taken:
        assert taken.identity.client_public == (work.home.work(shell.id) / "client_key.pub").read_text().strip(), "nobody else gets in"
        image = commit(taken, CommitOptions("web", "1.0.1", "it was urgent"))
    assert (image.origin, image.parent, image.verified) == ("committed", shell.image, False)
    assert shell.disk.read_bytes() == before
    build = work.catalog.build_of(image)
    assert build.reproduction["committed"]["message"] == "it was urgent"
    assert {(each.path, each.change, each.step) for each in changed(work, image).values() if each.path != "/etc"} == {
        ("/etc/hotfix", "added", None),
        ("/etc/never", "removed", None),
    }
    disk = Disk(DirectoryStore(work.home.blobs).path(image.chain[0]), "qcow2", image.virtual_size)
    with open_root(disk) as root:
        assert root.read("/etc/hotfix") == b"two\n"
    with pytest.raises(UsageError) as caught:
        rebuild(Request(image, build), work.services(work.heard))
    assert caught.value.code == "rebuild.committed"


def committed(work: Workshop, shell: Shell, version: str = "1.0.1") -> ImageRecord:
    with take(work.services(work.heard), shell.id) as taken:
        return commit(taken, CommitOptions("web", version, "it was urgent"))


def test_a_committed_image_has_its_log_and_its_console_on_record(work: Workshop, shell: Shell) -> None:
    image = committed(work, shell)
    build, store = work.catalog.build_of(image), DirectoryStore(work.home.blobs)
    assert set(build.evidence) == {"log", "commit_console", "packages_before", "packages_after", "manifest", "changes"}
    with store.open(build.evidence["log"]) as blob:
        log = read_text(blob)
    assert all(stage in log for stage in ("copy", "launch", "boot", "seal", "capture", "inspect"))
    with store.open(build.evidence["commit_console"]) as blob:
        assert read_text(blob) == "commit login:\n"
    assert set(build.timings) >= {"copy", "boot", "seal", "capture"}
    assert build.machine["hypervisor"] == FACTS.hypervisor
    assert (build.template_text, build.template_digest, build.steps) == ("", "", ())


def test_a_committed_image_is_attested_when_there_is_a_key(work: Workshop, shell: Shell) -> None:
    Keys(work.home.data / "keys", {}).create()
    image = committed(work, shell)
    (attestation,) = work.catalog.attestations.of(image.id)
    assert attestation.predicate == "https://slsa.dev/provenance/v1"


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
def test_no_check_of_an_audit_fails_because_an_image_was_committed(work: Workshop, shell: Shell, signed: bool) -> None:
    if signed:
        Keys(work.home.data / "keys", {}).create()
    image, store = committed(work, shell), DirectoryStore(work.home.blobs)
    trust = TrustContext.of(work.home, work.catalog, store, {})
    story = gather(work.catalog, store, image, (checker(trust),))
    assert [f"{check.name}: {check.detail}" for check in story.failed] == []
    status = {check.name: check.status for check in story.checks}
    assert (status["template"], status["evidence"], status["lineage"]) == ("unknown", "ok", "ok")
    assert status["signatures"] == ("ok" if signed else "unknown")


def test_a_committed_image_that_cannot_be_signed_is_there(work: Workshop, shell: Shell) -> None:
    Keys(work.home.data / "keys", {"BAKE_KEY_PASSPHRASE": "x"}).create()
    image = committed(work, shell)
    assert work.catalog.image(image.id) == image
    assert "the image is not attested: the key default cannot be opened" in work.said


def test_a_version_that_is_taken_is_not_committed_to(work: Workshop, shell: Shell) -> None:
    with pytest.raises(UsageError, match=r"web@1\.0\.0") as caught, take(work.services(work.heard), "shell:0123") as taken:
        commit(taken, CommitOptions("web", "1.0.0"))
    assert caught.value.code == "image.version-taken"


def test_a_running_shell_is_compared_as_it_is_on_its_disk(work: Workshop, shell: Shell) -> None:
    services = work.services(work.heard)
    with side(services, "web") as before, side(services, f"shell:{shell.id}") as after:
        found = compare(before, after)
    assert {(each.path, each.what[0]) for each in found.files} == {("/etc/hotfix", "added"), ("/etc/never", "removed")}
    assert "0123456789ab" in found.after


def test_a_layer_is_compared_with_another(work: Workshop, shell: Shell) -> None:
    services = work.services(work.heard)
    with side(services, "layer:web@1") as before, side(services, "layer:web@2") as after:
        assert {each.path for each in compare(before, after).files} == {"/etc/made", "/etc/conf.d", "/etc/conf.d/a"}


def test_a_shell_that_is_not_there(work: Workshop, shell: Shell) -> None:
    with pytest.raises(NotFoundError, match="'ffff'") as error, take(work.services(work.heard), "ffff"):
        pass
    assert error.value.code == "session.no-such-shell"
    assert "0123456789ab" in error.value.hint
