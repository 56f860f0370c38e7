"""From a template to an image that somebody uses: the shipped templates, on real machines."""

import json
import re
import stat
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import PROJECT, Bake, leftovers

pytestmark = [pytest.mark.vm, pytest.mark.net]
WEB = PROJECT / "templates/web.yaml"
MEMORY_LIMIT_KIB = 192 * 1024  # most of it while a file system of some ten thousand files is laid out anew


def test_a_missing_base_is_baked_first_and_both_are_images(baked_home: Path) -> None:
    images = Bake(baked_home)("images", "--json").ok().json
    by_name = {image["name"]: image for image in images}
    assert set(by_name) == {"debian-13", "web"}
    web, base = by_name["web"], by_name["debian-13"]
    assert web["parent"] == base["id"] and base["parent"] is None
    assert web["verified"] and base["verified"]
    for image in images:
        assert {"name", "version", "id", "digest", "fingerprint", "parent", "created", "size"} <= set(image)
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", image["digest"])
        assert re.fullmatch(r"[0-9a-f]{64}", image["fingerprint"])
    assert web["size"] < base["size"], "an image holds what differs from its base, not the base again"


def test_nothing_is_left_beside_catalog_and_store(baked_home: Path) -> None:
    assert leftovers(baked_home) == []


def test_bake_itself_stays_small(baked_home: Path) -> None:
    assert int((baked_home / "peak").read_text()) < MEMORY_LIMIT_KIB


def test_building_it_again_answers_from_the_catalog(baked: Bake) -> None:
    before = baked("images", "--json").json
    result = baked("build", WEB, "--json").ok()
    assert result.events[-1]["event"] == "build_finished"
    assert result.events[-1]["status"] == "unchanged"
    assert not any(event["event"] == "step_started" for event in result.events)
    assert baked("images", "--json").json == before


def test_the_record_tells_how_it_was_made(baked: Bake) -> None:
    record = baked("show", "web", "--json").ok().json
    text = json.dumps(record)
    for part in ("nginx", "template_text", "debian-13", "packages_after", "manifest", "junit", "host", "tools", "timings"):
        assert part in text
    shown = baked("show", "web").ok().out
    assert "web" in shown and "debian-13" in shown


def test_history_is_a_tree_with_the_root_first(baked: Bake) -> None:
    lines = baked("history", "web").ok().out.splitlines()
    places = [next(i for i, line in enumerate(lines) if word in line) for word in ("debian-13", "web")]
    assert places == sorted(places)


def test_logs_have_what_the_steps_printed(baked: Bake) -> None:
    assert "nginx" in baked("logs", "web").ok().out
    assert "login:" in baked("logs", "web", "--console").ok().out or "Linux version" in baked("logs", "web", "--console").ok().out


def test_the_page_is_served_to_the_host(baked: Bake) -> None:
    with baked.start("run", "web", "-p", "80") as process:
        assert process.stdout
        url = ""
        for line in process.stdout:
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if found:
                url = found.group()
                break
        assert url, "bake run says where the port is"
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert answer.status == 200
            assert b"<h1" in answer.read()
        process.send_signal(2)
        assert process.wait(60) in (0, 130)
    assert leftovers(baked.home) == []


SEEN = r"""
find /usr /boot /opt /srv /var/lib/dpkg -xdev -printf '%y\t%m\t%U\t%G\t%s\t%Ts\t%l\t%p\n'
find /usr/bin /usr/sbin -xdev -type f -exec sha256sum {} +
"""


def test_a_command_in_a_throw_away_machine_leaves_the_image_as_it_was(baked: Bake) -> None:
    before = baked("images", "--json").json
    result = baked("run", "web", "--", "sh", "-c", f"echo changed > /etc/motd; nginx -v; cat /etc/motd; {SEEN}exit 9")
    assert "changed" in result.out and "nginx" in result.out + result.err
    assert result.code == 9
    assert baked("images", "--json").json == before
    listed = {each["path"]: each for each in baked("show", "web", "--files", "--json").ok().json}
    assert_seen(result.out.splitlines(), listed)


def assert_seen(lines: list[str], listed: dict[str, dict[str, Any]]) -> None:
    """That the files which bake read on the host are those that the guest itself finds (where its boot writes nothing)."""
    found = [line.split("\t") for line in lines if line.count("\t") == 7]
    digests = [line.split("  ", 1) for line in lines if re.match(r"[0-9a-f]{64}  /", line)]
    assert len(found) > 5000
    assert len(digests) > 300
    assert {path for *_, path in found} == {path for path in listed if re.match(r"/(usr|boot|opt|srv|var/lib/dpkg)(/|$)", path)}
    for kind, mode, uid, gid, size, time, target, path in found:
        entry = listed[path]
        assert stat.filemode(entry["mode"])[0] == {"f": "-"}.get(kind, kind), path
        assert (stat.S_IMODE(entry["mode"]), entry["uid"], entry["gid"], entry["target"]) == (int(mode, 8), int(uid), int(gid), target), (
            path
        )
        assert entry["mtime"] == int(time), path
        assert kind == "d" or entry["size"] == int(size), path
    assert {path: digest for digest, path in digests} == {path: listed[path]["sha256"] for _, path in digests}


@pytest.mark.parametrize("kind", ["qcow2", "raw", "vmdk", "vhdx", "vdi"])
def test_an_export_stands_by_itself(baked: Bake, tmp_path: Path, kind: str) -> None:
    target = tmp_path / f"web.{kind}"
    baked("export", "web", "--format", kind, "--output", target).ok()
    info = json.loads(subprocess.run(["qemu-img", "info", "--output=json", str(target)], capture_output=True, check=True).stdout)
    assert info["format"] == kind
    assert "backing-filename" not in info


def test_a_raw_export_has_the_digest_of_the_image(baked: Bake, tmp_path: Path) -> None:
    image = baked("images", "--name", "web", "--json").json[0]
    baked("export", "web", "--format", "raw", "--output", tmp_path / "web.raw").ok()
    said = subprocess.run(["sha256sum", str(tmp_path / "web.raw")], capture_output=True, text=True, check=True).stdout.split()[0]
    assert image["digest"] == f"sha256:{said}"


def test_a_tar_export_has_the_files(baked: Bake, tmp_path: Path) -> None:
    baked("export", "web", "--format", "tar", "--output", tmp_path / "web.tar").ok()
    names = subprocess.run(["tar", "tf", str(tmp_path / "web.tar")], capture_output=True, text=True, check=True).stdout.splitlines()
    assert any(name.lstrip("./") == "usr/sbin/nginx" for name in names)


def test_a_base_in_use_is_not_removed(baked: Bake) -> None:
    refused = baked("rm", "debian-13")
    assert refused.code == 7 and "web" in refused.err
    baked("rm", "web").ok()
    baked("rm", "debian-13").ok()
    assert baked("images", "--json").json == []
    assert list((baked.home / "data/blobs").rglob("*.qcow2")) == []


def test_sealed_images_come_up_as_different_machines(baked: Bake) -> None:
    look = "cat /etc/machine-id; cat /etc/ssh/ssh_host_ed25519_key; sha256sum < /var/lib/systemd/random-seed"
    left = "wc -l < /root/.ssh/authorized_keys; ls -d /root/.bash_history /var/lib/cloud/instance 2>/dev/null || echo none"
    machines = [baked("run", "debian-13", "--", "sh", "-c", f"{look}; {left}").ok().out for _ in range(2)]
    ids = [machine.splitlines()[0] for machine in machines]
    keys = [re.findall(r"PRIVATE KEY-----\n(.*?)-----END", machine, re.DOTALL) for machine in machines]
    seeds = [re.findall(r"^([0-9a-f]{64}) ", machine, re.MULTILINE) for machine in machines]
    for first, second in (ids, keys, seeds):
        assert first and second and first != second
    for machine in machines:
        assert machine.splitlines()[-2:] == ["1", "none"], "the key of this boot, and not that of the build; no history"
