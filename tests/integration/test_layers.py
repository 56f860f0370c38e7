"""Layers on real machines: machines that go on from where another one stood, and images that do not tell."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Bake, leftovers
from tests.support.until import until
from tests.support.web import Site, serving

pytestmark = pytest.mark.vm

HEAD = "schema: 1\nname: small\nversion: 1.0.0\nsource: {image: debian-13}\nbuilder: {cpus: 1, memory: 512MiB}\nprovisioners:\n"
KEPT = "    cache: {keep: true}\n"  # else the host's load would decide
FIRST = "  - name: first\n    shell: date +%s > /etc/first; head -c 16 /dev/urandom | od -An -tx1 > /etc/first-random\n" + KEPT
SECOND = "  - name: second\n    shell: echo two > /etc/second\n" + KEPT
LAST = "  - name: last\n    shell: date +%s > /etc/last; head -c 16 /dev/urandom | od -An -tx1 > /etc/random\n"


def write(tmp_path: Path, *steps: str, name: str = "small") -> Path:
    path = tmp_path / f"{name}.yaml"
    path.write_text(HEAD.replace("small", name) + "".join(steps))
    return path


def build(bake: Bake, *args: str | Path) -> list[dict[str, Any]]:
    return bake("build", *args, "--json", "--skip-verify", "--debug").ok().events


def cached(events: list[dict[str, Any]]) -> list[str]:
    return [event["step"] for event in events if event["event"] == "step_finished" and event["cached"]]


def ran(events: list[dict[str, Any]]) -> list[str]:
    return [event["step"] for event in events if event["event"] == "step_started"]


def stages(events: list[dict[str, Any]]) -> list[str]:
    return [event["stage"] for event in events if event["event"] == "stage_started"]


def files(bake: Bake, tmp_path: Path, image: str) -> dict[str, tuple[Any, ...]]:
    """What an image holds: path -> type, mode, owner, size, content of small files."""
    target = tmp_path / f"{image.replace('@', '-')}-{time.monotonic_ns()}.tar"
    bake("export", image, "--format", "tar", "--output", target).ok()
    found = {}
    with tarfile.open(target) as archive:
        for entry in archive:
            small = archive.extractfile(entry) if entry.isreg() and entry.size < 4096 else None
            path = entry.name.removeprefix("./").rstrip("/")
            found[path] = (entry.type, entry.mode, entry.uid, entry.gid, entry.size if entry.isreg() else 0, small.read() if small else b"")
    target.unlink()
    return found


def layer_files(bake: Bake, name: str) -> list[Path]:
    return sorted((bake.home / "cache/layers").glob(f"*-*/{name}"))


def test_a_changed_last_step_goes_on_from_the_layer_before_it(baked: Bake, tmp_path: Path) -> None:
    first = build(baked, write(tmp_path, FIRST, SECOND, LAST))
    assert ran(first) == ["first", "second", "last"] and "restore" in stages(first), "from the base's layer 0: nobody waits for a boot"
    assert "boot" not in stages(first)
    before = files(baked, tmp_path, "small")
    again = build(baked, write(tmp_path, FIRST, SECOND, LAST.replace("/etc/last", "/etc/newest")))
    assert (cached(again), ran(again)) == (["first", "second"], ["last"])
    after = files(baked, tmp_path, "small")
    assert after["etc/first"] == before["etc/first"] and after["etc/second"] == before["etc/second"]
    assert "etc/last" not in after and "etc/newest" in after
    assert after["etc/random"] != before["etc/random"], "a restored machine draws other random numbers than its twin"
    assert abs(int(after["etc/newest"][5]) - time.time()) < 600 and int(after["etc/newest"][5]) > int(after["etc/first"][5])
    assert leftovers(baked.home) == []


def test_the_clock_and_the_network_of_a_restored_machine_are_right(baked: Bake, tmp_path: Path) -> None:
    with serving(Site({"/hello": b"reached"})) as site:
        port = site.url.rpartition(":")[2]
        build(baked, write(tmp_path, FIRST), "--until", "first")
        time.sleep(3)
        fetch = f"python3 -c 'import urllib.request as r; print(r.urlopen(\"http://10.0.2.2:{port}/hello\").read())'"
        told = baked("run", "--layer", "small@1", "--", "sh", "-c", f"date +%s; {fetch}; cat /etc/first").ok().out.splitlines()
    assert abs(int(told[0]) - time.time()) < 120
    assert told[1] == "b'reached'"
    assert int(told[2]) < int(told[0])
    assert leftovers(baked.home) == []


# what no two boots agree on, restored or not; sealing leaves it because it belongs to the image's own history
VARIES = re.compile(r"^(etc/(first|last|random|first-random)|etc/\.updated|var/\.updated|var/log/.*|var/lib/dpkg/.*)$")


def test_nothing_in_an_image_tells_that_its_machine_was_restored(baked: Bake, tmp_path: Path) -> None:
    template = write(tmp_path, FIRST, SECOND, LAST)
    assert "boot" in stages(build(baked, template, "--no-cache"))
    booted = files(baked, tmp_path, "small")
    assert cached(build(baked, template, "--from", "last")) == ["first", "second"]
    restored = files(baked, tmp_path, "small")
    different = {path for path in {*booted, *restored} if booted.get(path) != restored.get(path)}
    assert {path for path in different if not VARIES.match(path)} == set()
    for absent in ("var/lib/systemd/random-seed", "root/.ssh/authorized_keys", "etc/ssh/ssh_host_ed25519_key"):
        assert absent not in restored
    assert restored["etc/machine-id"][4] == 0
    assert [path for path in restored if path.startswith(("var/log/journal/", "run/systemd/netif"))] == []


def test_machines_branch_from_a_middle_layer(baked: Bake, tmp_path: Path) -> None:
    build(baked, write(tmp_path, FIRST, SECOND, LAST))
    other = build(baked, write(tmp_path, FIRST, SECOND.replace("two", "zwei"), LAST, name="other"))
    assert (cached(other), ran(other)) == (["first"], ["second", "last"])
    assert files(baked, tmp_path, "other")["etc/second"][5] == b"zwei\n"
    assert files(baked, tmp_path, "small")["etc/second"][5] == b"two\n"


def test_a_failed_build_goes_on_where_it_failed_and_its_machine_can_be_entered(baked: Bake, tmp_path: Path) -> None:
    failed = baked("build", write(tmp_path, FIRST, SECOND, "  - name: last\n    shell: exit 7\n"), "--json")
    assert failed.code == 3
    entered = baked("run", "--layer", "small@second", "--", "sh", "-c", "cat /etc/second; echo mess > /etc/second").ok()
    assert entered.out == "two\n"
    fixed = build(baked, write(tmp_path, FIRST, SECOND, LAST))
    assert (cached(fixed), ran(fixed)) == (["first", "second"], ["last"])
    assert files(baked, tmp_path, "small")["etc/second"][5] == b"two\n", "who enters a layer changes nothing in it"
    assert leftovers(baked.home) == []


def test_plan_tells_what_is_cached_and_what_changed(baked: Bake, tmp_path: Path) -> None:
    build(baked, write(tmp_path, FIRST, SECOND, LAST))
    template = write(tmp_path, FIRST, SECOND.replace("two", "2"), LAST)
    steps = baked("plan", template, "--json").ok().json[0]["steps"]
    assert [(step["cached"], step["why"]) for step in steps] == [
        (True, ""), (False, "changed: inline"), (False, "after a change of an earlier step"),
    ]  # fmt: skip
    shown = baked("plan", template).ok().out
    assert "changed: inline" in shown and "the layer after step 1" in shown


def test_a_damaged_layer_is_passed_over_and_said(baked: Bake, tmp_path: Path) -> None:
    template = write(tmp_path, FIRST, SECOND, LAST)
    build(baked, template)
    for path in layer_files(baked, "layer.json"):
        if json.loads(path.read_text())["name"] == "second":
            memory = path.with_name("memory.zst")
            data = memory.read_bytes()
            memory.unlink()  # its file is shared with other tests' homes
            memory.write_bytes(data[: len(data) // 2])
    again = build(baked, template, "--from", "last")
    assert (cached(again), ran(again)) == (["first"], ["second", "last"])
    warnings = [event["text"] for event in again if event["event"] == "message" and event["level"] == "warning"]
    assert any("the layer after second cannot be restored" in text for text in warnings)
    assert leftovers(baked.home) == []


def test_collecting_every_layer_leaves_the_images_whole(baked: Bake, tmp_path: Path) -> None:
    template = write(tmp_path, FIRST)
    build(baked, template)
    used = baked("du", "--json").ok().json
    assert {"image", "layer", "evidence"} <= {item["kind"] for item in used}
    shown = baked("gc", "--keep-size", "0", "--dry-run").ok().out
    assert "would remove layer small@1 first" in shown
    baked("gc", "--keep-size", "0").ok()
    assert layer_files(baked, "layer.json") == []
    image = baked("images", "--name", "small", "--json").json[0]
    baked("export", "small", "--format", "raw", "--output", tmp_path / "small.raw").ok()
    said = subprocess.run(["sha256sum", str(tmp_path / "small.raw")], capture_output=True, text=True, check=True).stdout.split()[0]
    assert image["digest"] == f"sha256:{said}"
    assert "boot" in stages(build(baked, template, "--force")), "there is nothing to go on from"


def test_removing_the_base_takes_its_layers_along(baked: Bake, tmp_path: Path) -> None:
    assert layer_files(baked, "layer.json") != []
    baked("rm", "web").ok()
    baked("rm", "debian-13").ok()
    assert layer_files(baked, "layer.json") == []
    assert [item for item in baked("du", "--json").ok().json if item["kind"] in ("image", "layer", "leftover")] == []


MOMENTS = {
    "restore": lambda event: event["event"] == "stage_started" and event["stage"] == "restore",
    "save": lambda event: event["event"] == "step_finished" and event["step"] == "first",
    "packing": lambda event: event["event"] == "message" and event["text"].startswith("kept after first"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_kill_9_while_a_layer_is_made_or_used_leaves_only_whole_layers(baked: Bake, tmp_path: Path, moment: str) -> None:
    template = write(tmp_path, FIRST, SECOND)
    code, _ = baked.until(["build", template, "--skip-verify", "--debug"], MOMENTS[moment], signal.SIGKILL)
    assert code == -signal.SIGKILL
    baked("sweep").ok()
    until(lambda: leftovers(baked.home) == [], 10, lambda: f"nothing is left: {leftovers(baked.home)}")
    for layer in layer_files(baked, "layer.json"):
        assert (layer.with_name("memory.zst")).is_file() and (layer.with_name("disk.qcow2")).is_file()
    events = build(baked, template)
    assert [*cached(events), *ran(events)] == ["first", "second"]
    assert files(baked, tmp_path, "small")["etc/second"][5] == b"two\n"


def test_four_templates_on_one_base_share_its_layer(baked: Bake, tmp_path: Path) -> None:
    templates = [write(tmp_path, f"  - name: only\n    shell: echo {name} > /etc/name\n", name=name) for name in ("a", "b")]
    events = build(baked, *templates, "--parallel", "2")
    assert "boot" not in stages(events) and stages(events).count("restore") == 2
    assert {files(baked, tmp_path, name)["etc/name"][5] for name in ("a", "b")} == {b"a\n", b"b\n"}
    assert leftovers(baked.home) == []
