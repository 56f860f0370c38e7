"""What goes wrong: killed builds, full disks, guests that never answer. Nothing is lost and nothing is left."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.cli import Bake, leftovers
from tests.support.until import until

pytestmark = pytest.mark.vm

HEAD = "schema: 1\nname: small\nversion: 1.0.0\nsource: {image: debian-13}\nbuilder: {cpus: 1, memory: 512MiB}\n"
STAGES = ["resolve", "launch", "boot", "restore", "provision", "seal", "capture", "verify", "record"]


def small(tmp_path: Path, *lines: str, head: str = HEAD) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(head + "\n".join(lines) + "\n")
    return path


def checked(tmp_path: Path, *lines: str, check: str = "assert host.file('/etc/stamp').exists") -> Path:
    (tmp_path / "test_small.py").write_text(f"def test_stamp(host):\n    {check}\n")
    return small(tmp_path, *lines, "verify:\n  - testinfra: test_small.py")


def consistent(bake: Bake) -> list[str]:
    """The names of the images after checking that every blob of every image is whole and that the database is sound."""
    database = sqlite3.connect(bake.home / "data/catalog.sqlite")
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    images = bake("images", "--json").ok().json
    for image in images:
        for digest in image["chain"]:
            name = digest.removeprefix("sha256:")
            found = list((bake.home / "data/blobs").rglob(f"*{name[2:]}"))
            assert found, f"{image['name']}: blob {digest} is missing"
    return [image["name"] for image in images]


@pytest.mark.parametrize("stage", STAGES)
def test_kill_9_at_any_stage_is_cleaned_up_by_sweep(baked: Bake, tmp_path: Path, stage: str) -> None:
    template = checked(tmp_path, "provisioners:", "  - shell: echo hello > /etc/stamp")
    flags = ["--no-cache"] if stage in ("launch", "boot") else []
    code, _ = baked.until(["build", template, *flags], lambda e: e["event"] == "stage_started" and e["stage"] == stage, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert "small" not in consistent(baked)
    baked("sweep").ok()
    until(lambda: leftovers(baked.home) == [], 10, lambda: f"nothing is left: {leftovers(baked.home)}")
    assert set(consistent(baked)) == {"debian-13", "web"}


def test_the_next_build_cleans_up_after_a_killed_one_and_goes_on(baked: Bake, tmp_path: Path) -> None:
    template = checked(tmp_path, "provisioners:", "  - shell: echo hello > /etc/stamp")
    baked.until(["build", template], lambda e: e["event"] == "step_started", signal.SIGKILL)
    assert any("process" in thing for thing in leftovers(baked.home)), "the machine outlives a killed bake"
    result = baked("build", template, "--skip-verify").ok()
    assert "of killed builds" in result.out + result.err
    assert "not verified" in result.out + result.err
    assert [i["verified"] for i in baked("images", "--name", "small", "--json").json] == [False]
    assert leftovers(baked.home) == []
    assert "small" in consistent(baked)


@pytest.mark.parametrize(("number", "code", "at"), [(signal.SIGINT, 130, "provision"), (signal.SIGTERM, 143, "boot")])
def test_an_interrupted_build_cleans_up_by_itself(baked: Bake, tmp_path: Path, number: int, code: int, at: str) -> None:
    template = small(tmp_path, "provisioners:", "  - shell: sleep 300")
    flags = ["--no-cache"] if at == "boot" else []
    ended, events = baked.until(["build", template, *flags], lambda e: e["event"] == "stage_started" and e["stage"] == at, number)
    assert ended == code
    assert events[-1]["event"] == "build_finished" and events[-1]["status"] == "interrupted"
    assert leftovers(baked.home) == []


def test_a_failing_step_says_which_and_what_it_printed(baked: Bake, tmp_path: Path) -> None:
    template = small(tmp_path, "provisioners:", "  - name: break it", "    shell: echo about to fail; echo no luck >&2; exit 7")
    result = baked("build", template)
    assert result.code == 3
    said = result.out + result.err
    for part in ("break it", "7", "no luck", "small.yaml:"):
        assert part in said
    build = re.search(r"bake logs ([0-9a-f]{12})", said)
    assert build, "the way to the log is said"
    assert "about to fail" in baked("logs", build.group(1)).ok().out
    assert leftovers(baked.home) == []


def test_an_image_that_fails_its_tests_is_not_registered(baked: Bake, tmp_path: Path) -> None:
    template = checked(tmp_path, "provisioners:", "  - shell: 'true'")
    result = baked("build", template)
    assert result.code == 4
    assert "test_stamp" in result.out + result.err
    assert "small" not in consistent(baked)
    assert leftovers(baked.home) == []


def test_other_tests_are_run_against_the_image_that_is_there(baked: Bake, tmp_path: Path) -> None:
    """Tests are no part of an image's fingerprint, but an image is verified by those that the template has now."""
    steps = ("provisioners:", "  - shell: echo hello > /etc/stamp")
    first = baked("build", checked(tmp_path, *steps), "--json").ok().events
    again = (
        baked("build", checked(tmp_path, *steps, check="assert host.file('/etc/stamp').content_string == 'hello\\n'"), "--json").ok().events
    )
    assert again[-1]["status"] == "unchanged" and again[-1]["image"] == first[-1]["image"]
    assert [event["name"] for event in again if event["event"] == "test_finished"] and not any(e["event"] == "step_started" for e in again)
    failing = baked("build", checked(tmp_path, *steps, check="assert host.file('/etc/stamp').content_string == 'bye'"))
    assert failing.code == 4 and "which passed other tests before" in failing.out + failing.err
    assert "small" in consistent(baked)


def test_a_guest_that_never_boots_shows_its_console(fresh: Bake, tmp_path: Path) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(tmp_path / "empty.qcow2"), "1G"], check=True)
    head = "schema: 1\nname: empty\nversion: 1.0.0\nsource: {file: empty.qcow2}\nbuilder: {memory: 256MiB}\n"
    template = small(tmp_path, "communicator: {ssh_timeout: 20s}", "provisioners:", "  - shell: 'true'", head=head)
    result = fresh("build", template)
    assert result.code == 3
    said = result.out + result.err
    assert "20 s" in said or "20s" in said
    assert "boot" in said.lower()
    assert leftovers(fresh.home) == []


def test_a_guest_whose_ssh_never_answers(baked: Bake, tmp_path: Path) -> None:
    broken = checked(tmp_path, "provisioners:", "  - shell: systemctl mask ssh.service ssh.socket",
                    "communicator: {ssh_timeout: 200s}")  # fmt: skip
    result = baked("build", broken)
    assert result.code in (3, 4)
    assert "login:" in result.out + result.err, "the console's last lines are shown"
    assert "small" not in consistent(baked)


def test_two_bakes_of_one_template_make_one_image(baked: Bake, tmp_path: Path) -> None:
    template = small(tmp_path, "provisioners:", "  - shell: echo hello > /etc/stamp")
    with baked.start("build", template, "--json") as first, baked.start("build", template, "--json") as second:
        outs = [process.communicate(timeout=1200)[0] for process in (first, second)]
        assert [first.returncode, second.returncode] == [0, 0], outs
    assert sorted("unchanged" in out.splitlines()[-1] for out in outs) == [False, True]
    assert consistent(baked).count("small") == 1


@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_said_and_leaves_nothing(baked_home: Path, tmp_path: Path) -> None:
    home = tmp_path / "full"
    home.mkdir()
    used = sum(path.stat().st_blocks * 512 for path in baked_home.rglob("*") if path.is_file())
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={used + (60 << 20)}", "tmpfs", str(home)], check=True)
    try:
        shutil.copytree(baked_home, home, dirs_exist_ok=True, symlinks=True)
        bake = Bake(home)
        template = small(tmp_path, "provisioners:", "  - shell: dd if=/dev/urandom of=/root/big bs=1M count=200")
        result = bake("build", template)
        assert result.code in (3, 6)
        assert re.search(r"no space|full", result.out + result.err, re.IGNORECASE), result.out + result.err
        assert set(consistent(bake)) == {"debian-13", "web"}
        bake("sweep").ok()
        assert leftovers(home) == []
    finally:
        subprocess.run(["umount", "-l", str(home)], check=True)


KILLED_WRITER = """
import os, sqlite3, sys
catalog = sqlite3.connect(sys.argv[1])
catalog.execute("UPDATE images SET name = name")
catalog.commit()
os._exit(0)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="mounting read-only needs root")
@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed-while-writing"])
def test_a_read_only_store_is_said(baked: Bake, tmp_path: Path, killed: bool) -> None:
    template = small(tmp_path, "provisioners:", "  - shell: 'true'")
    data = baked.home / "data"
    with closing(sqlite3.connect(data / "catalog.sqlite")):
        pass  # the last one to close takes the -wal file away
    if killed:  # a -wal file that holds a commit
        subprocess.run([sys.executable, "-c", KILLED_WRITER, data / "catalog.sqlite"], check=True)
    assert (data / "catalog.sqlite-wal").exists() == killed
    subprocess.run(["mount", "--bind", str(data), str(data)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(data)], check=True)
        result = baked("build", template)
        assert result.code == 6
        assert "read-only" in (result.out + result.err).lower()
        assert "debian-13" in baked("images").ok().out, "reading goes on working"
    finally:
        subprocess.run(["umount", "-l", str(data)], check=True)


def test_on_error_abort_leaves_the_machine_until_sweep(baked: Bake, tmp_path: Path) -> None:
    template = small(tmp_path, "provisioners:", "  - shell: echo here > /root/evidence; exit 1")
    result = baked("build", template, "--on-error=abort")
    assert result.code == 3
    found = re.search(r"ssh -F (\S+) (\S+)", result.out + result.err)
    assert found, "the way in is said"
    entered = subprocess.run(
        ["ssh", "-F", found[1], found[2], "cat /root/evidence"], capture_output=True, text=True, timeout=60, check=False
    )
    assert entered.stdout == "here\n"
    baked("images").ok()
    assert leftovers(baked.home), "it is still there"
    baked("sweep", "--kept").ok()
    until(lambda: leftovers(baked.home) == [], 10, lambda: f"nothing is left: {leftovers(baked.home)}")
