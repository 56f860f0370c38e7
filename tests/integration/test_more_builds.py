"""Builds beyond the shipped ones: a cloud image behind a URL, several at once, a person who steps in, exports after a build."""

import hashlib
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pydantic
import pytest

from baker.core.user_namespace import is_root
from tests.support.cli import Bake, leftovers
from tests.support.cloudimage import USERNAME, make_cloud_image
from tests.support.web import Site, serving

pytestmark = pytest.mark.vm
ON_DEBIAN = "source: {image: debian-13}\nbuilder: {cpus: 1, memory: 512MiB}\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.net
def test_a_cloud_image_behind_a_url(fresh: Bake, tmp_path: Path) -> None:
    checksum = make_cloud_image(tmp_path / "cloud.qcow2", tmp_path / "scratch")
    write(tmp_path / "test_cloud.py", CLOUD_TEST)
    with serving(Site({"/cloud.qcow2": (tmp_path / "cloud.qcow2").read_bytes()}, drop_after=[20_000_000])) as site:
        template = write(
            tmp_path / "cloud.yaml",
            f"schema: 1\nname: cloud\nversion: 1.0.0\nsource:\n  url: {{url: {site.url}/cloud.qcow2, checksum: {checksum}}}\n"
            f"communicator: {{ssh_username: {USERNAME}}}\nbuilder: {{cpus: 1, disk_size: 4GiB}}\n"
            "provisioners:\n  - shell: id -un > /etc/who; cloud-init status --wait || true\nverify:\n  - testinfra: test_cloud.py\n",
        )
        fresh("build", template).ok()
        first, second = (request.get("range") for request in site.requests)
        assert first is None and re.fullmatch(r"bytes=[1-9]\d*-", second or ""), "it went on where the connection broke"
        again = fresh("build", template).ok()
        assert "already there" in again.out and len(site.requests) == 2
    assert leftovers(fresh.home) == []


CLOUD_TEST = """
def test_steps_ran_as_root(host):
    assert host.file("/etc/who").content_string.strip() == "root"


def test_it_is_a_new_instance_with_one_key(host):
    assert host.file("/home/debian/.ssh/authorized_keys").content_string.count("ssh-ed25519") == 1
    assert len(host.check_output("ls /var/lib/cloud/instances").split()) == 1


def test_the_root_grew(host):
    assert int(host.check_output("df --output=size -k / | tail -1")) > 3_000_000
"""


def test_builds_run_side_by_side_and_one_failure_spares_the_other_when_asked_to(baked: Bake, tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.yaml", f"schema: 1\nname: bad\nversion: 1.0.0\n{ON_DEBIAN}provisioners:\n  - shell: exit 9\n")
    good = write(tmp_path / "good.yaml", f"schema: 1\nname: good\nversion: 1.0.0\n{ON_DEBIAN}provisioners:\n  - shell: 'true'\n")
    result = baked("build", bad, good, "--parallel", "2", "--keep-going", "--json")
    assert result.code == 3
    steps = [(event["event"], event["build"]) for event in result.events if event["event"] in ("stage_started", "build_finished")]
    first_end = next(i for i, (kind, _) in enumerate(steps) if kind == "build_finished")
    assert len({build for _, build in steps[:first_end]}) == 2, "both had begun before the first one ended"
    names = {image["name"] for image in baked("images", "--json").json}
    assert "good" in names and "bad" not in names
    assert leftovers(baked.home) == []


def test_a_matrix_makes_several_images_and_exports_them(baked: Bake, tmp_path: Path) -> None:
    template = write(
        tmp_path / "m.yaml",
        "schema: 1\nname: app-${{ matrix.flavour }}\nversion: 1.0.0\n" + ON_DEBIAN + "matrix: {flavour: [blue, green]}\n"
        "provisioners:\n  - shell: echo ${{ matrix.flavour }} > /etc/flavour\n"
        "post_processors:\n  - export: {format: raw, path: 'out-${{ matrix.flavour }}.raw'}\n",
    )
    baked("build", template).ok()
    assert {"app-blue", "app-green"} <= {image["name"] for image in baked("images", "--json").json}
    for flavour in ("blue", "green"):
        digest = next(i["digest"] for i in baked("images", "--name", f"app-{flavour}", "--json").json)
        with (tmp_path / f"out-{flavour}.raw").open("rb") as raw:
            assert digest == f"sha256:{hashlib.file_digest(raw, 'sha256').hexdigest()}"


def test_a_person_enters_the_failed_machine_mends_it_and_tries_again(baked: Bake, tmp_path: Path) -> None:
    template = write(
        tmp_path / "p.yaml", f"schema: 1\nname: mended\nversion: 1.0.0\n{ON_DEBIAN}provisioners:\n  - shell: test -e /root/mended\n"
    )
    keyboard = Terminal([sys.executable, "-m", "baker", "build", str(template), "--on-error=shell"], baked.environment())
    try:
        keyboard.expect(r"leave it with `exit`")
        keyboard.expect(r"root@bake.*[#$] ")
        keyboard.type("touch /root/mended; exit\n")
        keyboard.expect(r"etry the step")
        keyboard.type("r\n")
        assert keyboard.wait(600) == 0, keyboard.seen[-3000:]
    finally:
        keyboard.close()
    assert "mended" in {image["name"] for image in baked("images", "--json").json}
    assert leftovers(baked.home) == []


@pytest.mark.skipif(not is_root(), reason="makes a user")
@pytest.mark.net
def test_an_ordinary_user_bakes_too() -> None:
    """Nothing but the Debian packages needs root."""
    name = f"baker{os.getpid()}"
    subprocess.run(["useradd", "--create-home", "--home-dir", f"/tmp/{name}", name], check=True)
    try:
        home = Path(f"/tmp/{name}")
        template = write(home / "minimal.yaml", "schema: 1\nname: minimal\nversion: 1.0.0\nsource: {debootstrap: {suite: trixie}}\n"
                         "provisioners:\n  - shell: id -un > /etc/who\n")  # fmt: skip
        argv = ["runuser", "-u", name, "--", "env", f"HOME={home}", *python_of_anybody(home), "-m", "baker"]
        built = subprocess.run([*argv, "build", str(template)], check=False, capture_output=True, text=True, timeout=1000, cwd=home)
        assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    finally:
        subprocess.run(["userdel", "--remove", "--force", name], check=False, capture_output=True)


def python_of_anybody(directory: Path) -> list[str]:
    """The end of `env`'s arguments that starts a Python with this project which any user may run: the system's. What this user alone
    may read is copied to `directory`."""
    python = Path(f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
    if not python.exists():
        pytest.skip(f"no {python} that another user may run")
    project, packages = Path(__file__).resolve().parents[2], Path(pydantic.__file__).parents[1]
    if any(not parent.stat().st_mode & 0o001 for path in (project, packages) for parent in (path, *path.parents)):
        for name in ("baker", "provisioners"):
            shutil.copytree(project / name, directory / "project" / name)
        shutil.copytree(packages, directory / "packages", symlinks=True)
        project, packages = directory / "project", directory / "packages"
    return [f"PYTHONPATH={project}:{packages}", "PYTHONDONTWRITEBYTECODE=1", str(python)]


class Terminal:
    """A program on a terminal of its own, typed at and read from."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self.seen = ""
        self._read_to = 0
        controller, terminal = pty.openpty()
        self._controller = controller
        self._process = subprocess.Popen(
            argv, env={**env, "TERM": "xterm"}, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
        )
        os.close(terminal)

    def type(self, text: str) -> None:
        os.write(self._controller, text.encode())

    def expect(self, pattern: str, seconds: float = 600) -> None:
        """Wait until something new matches."""
        deadline = time.monotonic() + seconds
        while True:
            found = re.search(pattern, self.seen[self._read_to :])
            if found:
                self._read_to += found.end()
                return
            assert time.monotonic() < deadline and self._take(), f"{pattern!r} did not come:\n{self.seen[-3000:]}"

    def _take(self) -> bool:
        ready, _, _ = select.select([self._controller], [], [], 1.0)
        if not ready:
            return True
        try:
            data = os.read(self._controller, 65536)
        except OSError:
            return False
        self.seen += re.sub(r"\x1b(\[[0-?]*[ -/]*[@-~]|\].*?\x07)", "", data.decode(errors="replace"))
        return bool(data)

    def wait(self, seconds: float) -> int:
        deadline = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < deadline:
            self._take()
        return self._process.wait(1)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)
        os.close(self._controller)
