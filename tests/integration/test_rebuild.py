"""Images made again from their records: the demo elsewhere, without a network, bit by bit; one with careless steps, told by cause."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from baker.core.home import Home
from tests.support.cli import Bake, Result, leftovers

ALONE = 'ip link set lo up; exec "$@"'  # in a network of its own, which has nothing but its loopback
CARELESS = """schema: 1
name: careless
version: 1.0.0
source: {image: debian-13}
builder: {cpus: 1, memory: 512MiB}
reproducible: true
provisioners:
  - name: bytecode
    shell: |
      mkdir -p /opt/app/__pycache__; echo 'x = 1' >/opt/app/m.py
      cd /opt/app; python3 -c 'import py_compile as p, tempfile; p.compile("m.py", "__pycache__/m.cpython-313.pyc", tempfile.mktemp())'
  - {name: time, shell: "date -u +%FT%T.%NZ >/opt/built"}
  - {name: name, shell: "echo same >$(mktemp -p /opt tmp.XXXXXXXXXX)"}
  - name: archive
    shell: "cd /usr/share/zoneinfo/Etc; ls | shuf | tar -cf /opt/zones.tar -T -"
  - {name: log, shell: "echo \\"$(date -u +%T.%N) done\\" >/opt/install.log"}
"""


def alone(bake: Bake, *args: str | Path, timeout: float = 900) -> Result:
    """`bake` where there is no network, as far as this host lets its user have that; its build machine has none in any case."""
    command = [sys.executable, "-m", "baker", *map(str, args)]
    unshare = shutil.which("unshare")
    if unshare and shutil.which("ip") and subprocess.run([unshare, "-n", "ip", "link", "set", "lo", "up"], check=False).returncode == 0:
        command = [unshare, "-n", "sh", "-c", ALONE, "sh", *command]  # root can; as another user's root, libvirt does not start machines
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    done = subprocess.run(
        command, env=bake.environment() | nowhere, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
    )
    return Result(done.returncode, done.stdout, done.stderr, 0)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Bake]:
    """An empty home beside that of `baked`."""
    bake = Bake(tmp_path / "elsewhere")
    yield bake
    bake("sweep", "--kept", timeout=120)
    shutil.rmtree(Home.from_environment({"BAKE_HOME": str(bake.home), "HOME": "/"}).runtime, ignore_errors=True)


def test_the_demo_is_made_again_elsewhere_without_a_network_and_is_the_same_disk(baked: Bake, elsewhere: Bake, tmp_path: Path) -> None:
    wrote = baked("archive", "web", "-o", tmp_path, "--json").ok().json
    assert wrote["path"] == str(tmp_path / "web-1.0.0.bake")
    taken = alone(elsewhere, "import", wrote["path"], "--json").ok().json
    assert taken["manifest"] == wrote["digest"]
    image = baked("show", "web", "--json").ok().json["image"]
    elsewhere("keys", "create").ok()

    found = alone(elsewhere, "rebuild", "web", "--level", "3", "--attest", "--json").ok().json[0]
    assert (found["level"], found["rebuilt"], found["causes"]) == (3, image["digest"], [])
    shown = elsewhere("show", "web", "--json").ok().json
    assert shown["image"] == image
    assert (shown["rebuilds"][-1]["level"], shown["rebuilds"][-1]["disk"]) == (3, image["digest"])
    assert "L3, the same disk" in elsewhere("show", "web").ok().out
    assert [build["status"] for build in elsewhere("logs", "--json").ok().json] == ["built", "built"], "a rebuild is no build"
    policy = tmp_path / "policy.yaml"
    policy.write_text("level: 3\n")
    elsewhere("verify", "web", "--policy", policy).ok()
    assert baked("verify", "web", "--policy", policy).code == 4, "nobody there has proved it"
    assert leftovers(elsewhere.home) == []


def test_what_careless_steps_leave_is_told_by_cause(baked: Bake, tmp_path: Path) -> None:
    (tmp_path / "careless.yaml").write_text(CARELESS)
    baked("build", tmp_path / "careless.yaml").ok()
    layers = sorted(path.name for path in (baked.home / "cache/layers").iterdir())
    (tmp_path / "careless.yaml").unlink()
    result = baked("rebuild", "careless", "--json")
    found = result.json[0]
    assert (result.code, found["level"]) == (4, 1), found
    assert all(fact in result.err for fact in ("L1", "L3", "[rebuild.level-not-reached]"))
    causes: dict[str, dict[str, Any]] = {each["cause"]: each for each in found["causes"]}
    paths = {cause: sorted(one["path"] for one in each["paths"]) for cause, each in causes.items()}
    assert len(paths.pop("random-name")) == 2
    assert paths == {
        "bytecode": ["/opt/app/__pycache__/m.cpython-313.pyc"],
        "timestamp": ["/opt/built"],
        "archive-order": ["/opt/zones.tar"],
        "log": ["/opt/install.log"],
    }
    assert "tar --sort=name" in causes["archive-order"]["remedy"]
    assert sorted(path.name for path in (baked.home / "cache/layers").iterdir()) == layers, "a rebuild keeps no layers"
    assert leftovers(baked.home) == []
