"""Packer's side: writes its JSON from the same rendered steps, and runs "Packer + verification": a boot of its image and the same tests.

Where a setting could make Packer slower or its images larger, it has the better value; see `builder`. As a command,

    python -m bench.packer DISK TESTS IDENTITY_DIRECTORY WORK_DIRECTORY

verifies an image that Packer made, the way bake verifies its own: a machine on a throw-away overlay, SSH, all services up, pytest.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import guest, machine
from bench.guest import Anchors
from bench.harness import BenchError, Run, allocated, run
from bench.machine import Identity
from bench.steps import Rendered

ROOT = Path(__file__).resolve().parent.parent
BOOT_SECONDS = 300.0
POLL_SECONDS = 0.25  # bake's own
BANNER_SECONDS = 3.0
HALTING = "Gracefully halting virtual machine"
STARTING = "Starting VM"

# The usual last step of Packer templates that reduce the size, which bake's seal always does. Used in builds whose size is measured.
CLEAN_UP = "apt-get clean; rm -rf /var/lib/apt/lists/*; sync; fstrim /"


@dataclass(frozen=True)
class Packer:
    """Packer with its files in a directory of the benchmark."""

    directory: Path
    base: Path  # the source image, qcow2
    identity: Identity
    logs: Path

    def template(self, name: str, builds: Mapping[str, Rendered], *, clean_up: bool = False) -> Path:
        """Write NAME.json with a builder for each of `builds`."""
        shared: list[dict[str, Any]] = []
        for build, rendered in builds.items():
            shared += [{**provisioner, "only": [build]} for provisioner in provisioners(rendered, clean_up=clean_up)]
        document = {"builders": [self._builder(build) for build in builds], "provisioners": shared}
        path = self.directory / f"{name}.json"
        path.write_text(json.dumps(document, indent=1))
        return path

    def build(self, template: Path, *options: str) -> Run:
        """Build from scratch, as Packer always does; -force removes the result of the last run."""
        argv: list[str | Path] = ["packer", "build", "-color=false", "-force", *options, template]
        return run(argv, env=self._environment, cwd=self.directory, log=self.logs / f"packer-{template.stem}.log")

    def disk(self, build: str) -> Path:
        return self._output(build) / build

    def verify(self, build: str, rendered: Rendered) -> Run:
        """Boot the image and run the job's tests on it, as one process."""
        work = self.directory / "verify"
        argv: list[str | Path] = [sys.executable, "-m", "bench.packer", self.disk(build), rendered.tests, self.identity.directory, work]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        return run(argv, env=environment, cwd=ROOT, log=self.logs / f"packer-verify-{build}.log")

    def sizes(self, build: str) -> dict[str, float]:
        """Bytes of the image: as an overlay on the source image, and compacted, which is Packer's default."""
        whole = self.disk(build).with_suffix(".whole")
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", self.disk(build), whole], check=True)
        sizes = {"delta bytes": float(allocated(self.disk(build))), "whole bytes": float(allocated(whole))}
        whole.unlink()
        return sizes

    def figures(self, build: str, finished: Run) -> dict[str, float]:
        """The split of the run's time by the guest's clock, as for bake."""
        running = [line.at for line in finished.lines if STARTING in line.text]
        halting = [line.at for line in finished.lines if HALTING in line.text]
        if not running or not halting:
            return {}
        anchors = Anchors(finished.started, running[0], halting[-1], finished.ended)
        split = guest.split(anchors, finished.lines, self._console(build).read_text(errors="replace"))
        return guest.parts(split) if split else {}

    def _builder(self, name: str) -> dict[str, Any]:
        qemu = machine.qemu_arguments(self.identity, "{{ .SSHHostPort }}", self._console(name))
        return builder(name, self.base, self._output(name), self.identity, [*qemu, ["-vnc", "none"]])

    def _output(self, build: str) -> Path:
        return self.directory / "images" / build

    def _console(self, build: str) -> Path:
        return self.directory / f"{build}.console"

    @property
    def _environment(self) -> dict[str, str]:
        """CHECKPOINT_DISABLE: otherwise Packer first checks for a newer version over the network."""
        own = {"PACKER_CACHE_DIR": "cache", "PACKER_CONFIG_DIR": "config", "TMPDIR": "tmp"}
        for directory in own.values():
            (self.directory / directory).mkdir(parents=True, exist_ok=True)
        return {**os.environ, "CHECKPOINT_DISABLE": "1", **{name: str(self.directory / value) for name, value in own.items()}}


def builder(name: str, base: Path, output: Path, identity: Identity, qemu: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The fastest settings for Packer: the image is an overlay on the source (no copy before, no compaction after), the checksum of the
    source is not verified, the disk's cache mode is as unsafe as bake's, and there is no wait for a boot prompt."""
    return {
        "type": "qemu",
        "name": name,
        "vm_name": name,
        "accelerator": machine.ACCELERATOR,
        "machine_type": "q35",
        "cpus": machine.CPUS,
        "memory": machine.MEMORY_MIB,
        "iso_url": str(base),
        "iso_checksum": "none",
        "disk_image": True,
        "use_backing_file": True,
        "qemu_img_args": {"create": ["-F", "qcow2"]},
        "skip_resize_disk": True,
        "skip_compaction": True,
        "format": "qcow2",
        "disk_interface": "virtio",
        "disk_cache": "unsafe",
        "disk_discard": "unmap",
        "disk_detect_zeroes": "unmap",
        "headless": True,
        "boot_wait": "-1s",  # 0s would be ten seconds
        "disable_vnc": True,
        "communicator": "ssh",
        "ssh_username": "root",
        "ssh_private_key_file": str(identity.client_key),
        "ssh_timeout": "10m",
        "ssh_handshake_attempts": 1000,
        "shutdown_command": "systemctl poweroff",
        "output_directory": str(output),
        "qemuargs": [list(argument) for argument in qemu],
    }


def provisioners(rendered: Rendered, *, clean_up: bool) -> list[dict[str, Any]]:
    """The steps as Packer's provisioners."""
    steps: list[dict[str, Any]] = [
        {"type": "file", "source": str(step.path), "destination": step.destination}
        if step.destination
        else {"type": "shell", "script": str(step.path)}
        for step in rendered.steps
    ]
    return [*steps, {"type": "shell", "inline": [CLEAN_UP]}] if clean_up else steps


# -- verification of an image that Packer made ---------------------------------------------------------------------------


def main(disk: Path, tests: Path, identity: Identity, work: Path) -> int:
    """Exit code 0 when all tests pass."""
    work.mkdir(parents=True, exist_ok=True)
    overlay, config = work / "overlay.qcow2", work / "ssh_config"
    overlay.unlink(missing_ok=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "qcow2", overlay], check=True)
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="bench-") as sockets:  # a socket's path must be short
        config.write_text(_ssh_config(identity, port, Path(sockets) / "ssh"))
        with _machine(overlay, identity, port, work / "console"), _connection(config, port):
            subprocess.run(["ssh", "-F", config, "bench", "systemctl is-system-running --wait"], check=False)
            return subprocess.run(_pytest(tests, config), check=False, cwd=tests.parent, env=_pytest_environment()).returncode


def _pytest(tests: Path, config: Path) -> list[str]:
    options = ["-q", "-c", os.devnull, f"--rootdir={tests.parent}", "-p", "testinfra.plugin", "-p", "no:cacheprovider"]
    options += ["--import-mode=importlib", "--hosts=ssh://bench?controlpersist=0", f"--ssh-config={config}"]
    return [sys.executable, "-m", "pytest", *options, str(tests)]


def _pytest_environment() -> dict[str, str]:
    return {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


@contextmanager
def _machine(disk: Path, identity: Identity, port: int, console: Path) -> Iterator[None]:
    drive = f"file={disk},if=virtio,format=qcow2,cache=unsafe,discard=unmap,detect-zeroes=unmap"
    arguments = [word for option in machine.qemu_arguments(identity, str(port), console) for word in option]
    with subprocess.Popen(["qemu-system-x86_64", *arguments, "-drive", drive], stdin=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


@contextmanager
def _connection(config: Path, port: int) -> Iterator[None]:
    """Open one shared connection as soon as SSH answers."""
    deadline = time.monotonic() + BOOT_SECONDS
    while not _banner(port):
        if time.monotonic() > deadline:
            raise BenchError(f"no SSH within {BOOT_SECONDS:g} s")
        time.sleep(POLL_SECONDS)
    with subprocess.Popen(["ssh", "-F", config, "-M", "-N", "bench"], stdin=subprocess.DEVNULL) as master:
        try:
            while subprocess.run(["ssh", "-F", config, "-O", "check", "bench"], check=False, capture_output=True).returncode:
                if master.poll() is not None or time.monotonic() > deadline:
                    raise BenchError("SSH did not let us in")
                time.sleep(0.05)
            yield
        finally:
            master.terminate()


def _ssh_config(identity: Identity, port: int, control: Path) -> str:
    options = {
        "HostName": "127.0.0.1",
        "Port": str(port),
        "User": "root",
        "HostKeyAlias": "bench",
        "IdentityFile": str(identity.client_key),
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": str(identity.known_hosts),
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        "ControlMaster": "no",
        "ControlPath": str(control),
        "LogLevel": "ERROR",
    }
    return "Host bench\n" + "".join(f"  {name} {value}\n" for name, value in options.items())


def _banner(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=BANNER_SECONDS) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), Identity(Path(sys.argv[3])), Path(sys.argv[4])))
