"""Machines of libvirt's in-process driver, really started. Those that need no operating system run an empty disk: they are quick."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from baker.core.errors import BootError, BuildError, HostError
from baker.core.events import Null, Reporter
from baker.core.home import Home, ensure
from baker.core.ledger import BuildLedger, Ledger
from baker.core.model import Disk, Firmware, Forward, Identity, MachineSpec
from baker.core.resources import Resources
from baker.disks import qemuimg
from baker.machines.base import Launch
from baker.machines.identity import make_identity
from baker.machines.libvirt.builder import LibvirtBuilder
from baker.machines.libvirt.machine import LibvirtMachine
from baker.machines.libvirt.reclaim import qemu_processes
from baker.machines.ssh.client import SshCommunicator, connect
from baker.machines.ssh.communicator import Disconnected
from tests.support.disks import create_qcow2, root_file
from tests.support.machines import SSH_SECONDS
from tests.support.until import until

pytestmark = pytest.mark.vm

BUILD = "b0123456789ab"
SMALL = MachineSpec(cpus=1, memory=256 << 20, accelerator="tcg")
GUEST = MachineSpec(cpus=2, memory=512 << 20)
REPORT = Reporter(Null())


@dataclass
class Workshop:
    """A home with one open build in it."""

    home: Home
    ledger: BuildLedger
    scratch: Path
    builder: LibvirtBuilder

    def request(self, disk: Disk, shape: MachineSpec = SMALL, name: str = "build", forwards: tuple[Forward, ...] = ()) -> Launch:
        scratch = ensure(self.scratch / name)
        identity = make_identity(scratch, "guest", "root")
        return Launch(name, disk, shape, identity, scratch, self.ledger, REPORT, forwards)

    def entries(self) -> list[str]:
        return [json.loads(path.read_text())["kind"] for path in sorted(self.ledger.directory.glob("*.json"))]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.from_environment({"BAKE_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)})


@pytest.fixture
def workshop(home: Home) -> Iterator[Workshop]:
    with Ledger(ensure(home.ledger)).open(BUILD) as ledger:
        yield Workshop(home, ledger, ensure(home.work(BUILD)), LibvirtBuilder(home))


@pytest.fixture
def empty_disk(tmp_path: Path) -> Disk:
    return create_qcow2(tmp_path / "empty.qcow2", 1 << 30)


def open_ssh(workshop: Workshop, machine: LibvirtMachine, identity: Identity):  # type: ignore[no-untyped-def]
    scratch = workshop.scratch / machine.name
    return connect(machine.endpoint, identity, machine, scratch, report=REPORT, timeout=SSH_SECONDS)


# --- without an operating system --------------------------------------------------------------------------------------


def test_a_machine_is_gone_after_its_launch_with_all_that_was_made_for_it(workshop: Workshop, empty_disk: Disk) -> None:
    with workshop.builder.launch(workshop.request(empty_disk)) as machine:
        assert machine.running()
        assert (machine.facts.accelerator, machine.facts.accelerator_reason) == ("tcg", "requested")
        assert machine.facts.hypervisor.startswith("QEMU ")
        assert workshop.entries() == ["directory", "directory", "libvirt:domain"]
        root, overlay = machine.runtime, machine.fetch().path
        uuid = json.loads((workshop.ledger.directory / "0003.json").read_text())["uuid"]
        assert list(qemu_processes(uuid))
        arguments = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in qemu_processes(uuid)]
        secret = (workshop.scratch / "build/host_key").read_text().splitlines()[2].encode()
        assert not any(secret in text or b"PRIVATE" in text for text in arguments)
    assert not machine.running()
    assert (list(qemu_processes(uuid)), root.exists(), overlay.exists(), workshop.entries()) == ([], False, False, [])


def test_builds_of_one_process_share_the_driver_one_after_the_other(home: Home, empty_disk: Disk) -> None:
    for build in ("first-build-1", "second-build-2"):
        with Ledger(ensure(home.ledger)).open(build) as ledger:
            workshop = Workshop(home, ledger, ensure(home.work(build)), LibvirtBuilder(home))
            with workshop.builder.launch(workshop.request(empty_disk)) as machine:
                assert machine.running()
            assert workshop.entries() == []


def test_two_machines_of_one_build_at_once(workshop: Workshop, empty_disk: Disk) -> None:
    with workshop.builder.launch(workshop.request(empty_disk, name="one")) as one:
        with workshop.builder.launch(workshop.request(empty_disk, name="two")) as two:
            assert one.endpoint.port != two.endpoint.port
        assert one.running() and not two.running()
        assert one.runtime.exists()
    assert workshop.entries() == []


def test_an_error_of_the_build_comes_through_and_cleans_up(workshop: Workshop, empty_disk: Disk) -> None:
    with pytest.raises(ValueError, match="the step failed"):
        with workshop.builder.launch(workshop.request(empty_disk)):
            raise ValueError("the step failed")
    assert workshop.entries() == []


def test_forwards_are_on_loopback_and_a_port_in_use_is_an_error(workshop: Workshop, empty_disk: Disk) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(HostError, match=f"port {port} ") as error:
            with workshop.builder.launch(workshop.request(empty_disk, forwards=(Forward(80, port),))):
                pass
        assert error.value.code == "host.port-in-use"
    assert workshop.entries() == []
    with workshop.builder.launch(workshop.request(empty_disk, forwards=(Forward(80, port),))) as machine:
        assert machine.forwarded(80) == port
        assert machine.forwarded(443) not in (0, port)
        assert machine.forwarded(443) == machine.forwarded(443)
        sockets = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
        assert f"127.0.0.1:{port} " in sockets and f"0.0.0.0:{port} " not in sockets


def test_a_disk_does_not_shrink(workshop: Workshop, empty_disk: Disk) -> None:
    with pytest.raises(BuildError, match="disk_size"):
        with workshop.builder.launch(workshop.request(empty_disk, replace(SMALL, disk_size=1 << 20))):
            pass
    assert workshop.entries() == []


def test_what_qemu_refuses_is_told_in_its_words(workshop: Workshop, empty_disk: Disk) -> None:
    for shape, words in ((replace(SMALL, memory=1 << 50), "memory"), (replace(SMALL, machine_type="nonsense"), "nonsense")):
        with pytest.raises(HostError, match=words):
            with workshop.builder.launch(workshop.request(empty_disk, shape)):
                pass
        assert workshop.entries() == []


def test_a_guest_that_ignores_the_power_button_is_not_killed_and_not_captured(workshop: Workshop, empty_disk: Disk) -> None:
    with workshop.builder.launch(workshop.request(empty_disk)) as machine:
        with pytest.raises(BuildError, match="1 s") as late:
            machine.shutdown(1)
        assert late.value.code == "machine.shutdown-timeout"
        assert machine.running()
        with pytest.raises(BuildError) as refused:
            workshop.builder.capture(machine, workshop.scratch / "image.qcow2", Resources(workshop.ledger))
        assert refused.value.code == "machine.not-powered-off"


def test_a_machine_that_dies_is_noticed_at_once(workshop: Workshop, empty_disk: Disk) -> None:
    request = workshop.request(empty_disk)
    with workshop.builder.launch(request) as machine:
        uuid = json.loads((workshop.ledger.directory / "0003.json").read_text())["uuid"]

        def crash() -> None:
            for pid in qemu_processes(uuid):
                os.kill(pid, signal.SIGKILL)

        timer = threading.Timer(0.5, crash)
        timer.start()
        with pytest.raises(BootError) as stopped:
            with open_ssh(workshop, machine, request.identity):
                pass
        assert stopped.value.code == "machine.stopped"
        timer.join()
        with pytest.raises(BuildError) as died:
            machine.shutdown(5)
        assert died.value.code == "machine.died"
    assert workshop.entries() == []


HOLDER = Path(__file__).parents[1] / "support" / "hold_machine.py"


def hold(home: Home, disk: Disk, ending: str, build: str = "dead-build-01") -> tuple[int, Path]:
    """A machine whose process is gone. Its SSH port and its driver's root."""
    base = str(home.data.parent)
    argv = [sys.executable, str(HOLDER), base, build, str(disk.path), ending, "qemu:///embed"]
    result = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == (-signal.SIGKILL if ending == "kill" else 0), result.stderr
    port, root = result.stdout.split()
    return int(port), Path(root)


@pytest.mark.parametrize("ending", ["kill", "keep"])
def test_a_dead_process_machine_is_given_back(home: Home, empty_disk: Disk, workshop: Workshop, ending: str) -> None:
    port, root = hold(home, empty_disk, ending)
    entries = [json.loads(path.read_text()) for path in sorted((home.ledger / "dead-build-01").glob("*.json"))]
    assert [entry["kind"] for entry in entries] == ["directory", "directory", "libvirt:domain"]
    uuid = entries[2]["uuid"]
    assert list(qemu_processes(uuid)), "QEMU outlives its client: that is what is to be given back"
    # this process has a driver root of its own, which must not be in the way
    with workshop.builder.launch(workshop.request(empty_disk)) as mine:
        details = {key: value for key, value in entries[2].items() if key != "kind"}
        assert LibvirtBuilder(home).reclaim("libvirt:domain", details) is True
        assert list(qemu_processes(uuid)) == []
        assert LibvirtBuilder(home).reclaim("libvirt:domain", details) is True  # gone already
        assert mine.running()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
    assert root.is_relative_to(home.runtime)


def test_a_machine_is_given_back_without_its_drivers_files(home: Home, empty_disk: Disk) -> None:
    _, root = hold(home, empty_disk, "kill")
    details = json.loads((home.ledger / "dead-build-01" / "0003.json").read_text())
    for path in sorted(root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert LibvirtBuilder(home).reclaim(details.pop("kind"), details) is True
    assert list(qemu_processes(details["uuid"])) == []


# --- a whole Debian ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_from_power_on_to_a_captured_disk(workshop: Workshop, base_disk: Disk, firmware: Firmware) -> None:
    shape = replace(GUEST, firmware=firmware, disk_size=base_disk.virtual_size + (1 << 30))
    request = workshop.request(base_disk, shape, forwards=(Forward(8080),))
    image = workshop.scratch / "image.qcow2"
    with workshop.builder.launch(request) as machine:
        with open_ssh(workshop, machine, request.identity) as guest:
            assert guest.run("hostname").stdout.strip() == "guest"
            assert guest.run("test -d /sys/firmware/efi").exit_code == (0 if firmware == "uefi" else 1)
            size = int(guest.run("df -B1 --output=size / | tail -1").stdout)
            assert size > base_disk.virtual_size - (1 << 28)
            guest.put(os.urandom(8 << 20), "/root/noise")
            guest.run("sync; rm /root/noise; fstrim /")
            guest.put(b"kept", "/root/kept")
            if firmware == "bios":
                reboot(guest)
                assert guest.run("cat /root/kept").stdout == "kept"
                serve(guest, machine)
        machine.shutdown(SSH_SECONDS)
        assert not machine.running()
        captured = workshop.builder.capture(machine, image, Resources(workshop.ledger))
    assert (captured.path, captured.format, captured.virtual_size) == (image, "qcow2", shape.disk_size)
    assert qemuimg.info(image, "qcow2").backing_path == base_disk.path.absolute()
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", image], check=True)

    assert root_file(captured, "/root/kept") == b"kept"
    assert workshop.entries() == []


def reboot(guest: SshCommunicator) -> None:
    before = guest.boot_id()
    try:
        guest.run("systemctl reboot; sleep 600", timeout=300)
        pytest.fail("the guest did not reboot")
    except Disconnected:
        pass
    guest.wait(SSH_SECONDS)
    assert guest.boot_id() != before


def serve(guest: SshCommunicator, machine: LibvirtMachine) -> None:
    """What listens in the guest answers on the forwarded port."""
    guest.run("mkdir -p /tmp/www; echo hello >/tmp/www/index.html; cd /tmp/www; python3 -m http.server 8080 >/dev/null 2>&1 &")

    def answer() -> bytes:
        try:
            with socket.create_connection(("127.0.0.1", machine.forwarded(8080)), 20) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return b"".join(iter(lambda: connection.recv(4096), b""))
        except OSError:
            return b""

    until(lambda: b"hello" in answer(), 60, "the web server in the guest answers")
