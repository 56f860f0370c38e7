"""Machines of other libvirts than the embedded one: a system libvirtd of the test's own, a user's session, and users who are not root."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from baker.core.errors import HostError
from baker.core.events import Null, Reporter
from baker.core.home import Home, ensure
from baker.core.ledger import Ledger
from baker.core.model import Disk, MachineSpec
from baker.core.resources import Resources
from baker.disks import qemuimg
from baker.machines.base import Launch
from baker.machines.identity import make_identity
from baker.machines.libvirt.builder import LibvirtBuilder
from baker.machines.ssh.client import connect
from tests.support.disks import create_qcow2, root_file
from tests.support.libvirtd import ssh_into, system_libvirtd
from tests.support.machines import SSH_SECONDS

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(os.getuid() != 0 or shutil.which("libvirtd") is None, reason="a libvirtd of one's own needs root and libvirtd"),
]

SCRIPT = Path(__file__).parents[1] / "support" / "hold_machine.py"
OTHER_USER = "games"  # any user of the system who is not root


@pytest.fixture(scope="module")
def pool() -> Iterator[tuple[str, Path]]:
    """The URI of a system libvirtd, and where its volumes are: not below pytest's directory, which any other run of pytest closes to
    QEMU's user again."""
    with tempfile.TemporaryDirectory(prefix="bake-sys-") as directory, system_libvirtd(Path(directory)) as uri:
        yield uri, Path(directory) / "pool"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.from_environment({"BAKE_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)})


@pytest.fixture
def empty_disk(tmp_path: Path) -> Disk:
    return create_qcow2(tmp_path / "empty.qcow2", 1 << 30)


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_a_system_machine_has_its_files_in_volumes_and_leaves_none(
    pool: tuple[str, Path], home: Home, empty_disk: Disk, firmware: str
) -> None:
    uri, volumes = pool
    with Ledger(ensure(home.ledger)).open("sysbuild-1") as ledger:
        scratch = ensure(home.work("sysbuild-1"))
        identity = make_identity(scratch, "guest", "root")
        shape = MachineSpec(cpus=1, memory=256 << 20, accelerator="tcg", firmware=firmware)  # type: ignore[arg-type]
        request = Launch("build", empty_disk, shape, identity, scratch, ledger, Reporter(Null()))
        with LibvirtBuilder(home, uri).launch(request) as machine:
            assert machine.running() and machine.facts.connection == uri
            found = {name.removeprefix("bake-sysbuild-1-build-") for name in files(volumes)}
            assert {"base.qcow2", "disk.qcow2", "seed.img", "bake.ssh_host_ed25519_key"} <= found
            assert ("nvram.fd" in found) == (firmware == "uefi")
            assert {path.stat().st_mode & 0o077 for path in volumes.iterdir()} == {0}
            fetched = machine.fetch()
            assert qemuimg.info(fetched.path, "qcow2").backing_path == empty_disk.path.absolute(), "what is captured comes over the socket"
        assert files(volumes) == []
        assert list(ledger.directory.glob("*.json")) == []


def test_a_killed_process_system_machine_is_given_back(pool: tuple[str, Path], home: Home, empty_disk: Disk) -> None:
    uri, volumes = pool
    base = str(home.data.parent)
    held = subprocess.run([sys.executable, SCRIPT, base, "dead-sys-1", str(empty_disk.path), "kill", uri], check=False, timeout=120)
    assert held.returncode == -signal.SIGKILL
    assert files(volumes)
    builder = LibvirtBuilder(home)
    for path in sorted((home.ledger / "dead-sys-1").glob("[0-9]*.json"), reverse=True):
        entry = json.loads(path.read_text())
        kind = entry.pop("kind")
        assert kind == "directory" or builder.reclaim(kind, entry)
    assert files(volumes) == []
    domains = subprocess.run(["virsh", "-q", "-c", uri, "list", "--all", "--name"], capture_output=True, text=True, check=True).stdout
    assert "dead-sys-1" not in domains


def test_another_hosts_machine_is_reached_over_ssh_and_leaves_nothing(
    pool: tuple[str, Path], home: Home, empty_disk: Disk, tmp_path: Path
) -> None:
    _, volumes = pool
    with ssh_into(volumes.parent, tmp_path) as uri, Ledger(ensure(home.ledger)).open("remote-1") as ledger:
        scratch = ensure(home.work("remote-1"))
        shape = MachineSpec(cpus=1, memory=256 << 20, accelerator="tcg")
        request = Launch("build", empty_disk, shape, make_identity(scratch, "g", "root"), scratch, ledger, Reporter(Null()))
        with LibvirtBuilder(home, uri).launch(request) as machine:
            assert machine.running()
            assert machine.endpoint.proxy_command and "-W %h:%p" in machine.endpoint.proxy_command
            with pytest.raises(HostError, match=r"127\.0\.0\.1") as error:
                machine.forwarded(80)
            assert error.value.code == "machine.no-forwards"
        assert files(volumes) == []


def test_a_system_machine_is_used_and_captured_as_any_other(pool: tuple[str, Path], home: Home, base_disk: Disk, tmp_path: Path) -> None:
    """Reached as another host's is, where everything goes through SSH, and by its port on this host, as over a socket."""
    _, volumes = pool
    with ssh_into(volumes.parent, tmp_path) as uri, Ledger(ensure(home.ledger)).open("sysbuild-2") as ledger:
        scratch = ensure(home.work("sysbuild-2"))
        identity = make_identity(scratch, "guest", "root")
        shape = MachineSpec(cpus=1, memory=512 << 20, accelerator="tcg")
        wanted = Launch("build", base_disk, shape, identity, scratch, ledger, Reporter(Null()))
        builder = LibvirtBuilder(home, uri)
        with builder.launch(wanted) as machine:
            ways = {"ssh": machine.endpoint, "unix": replace(machine.endpoint, proxy_command=None)}
            for way, endpoint in ways.items():
                with connect(endpoint, identity, machine, scratch, report=wanted.report, timeout=SSH_SECONDS) as guest:
                    assert guest.run("hostname").stdout == "guest\n"
                    guest.put(way.encode(), f"/root/kept-{way}")
            machine.shutdown(SSH_SECONDS)
            assert machine.console_tail()
            captured = builder.capture(machine, scratch / "image.qcow2", Resources(ledger))
        assert files(volumes) == []
    assert qemuimg.info(captured.path, "qcow2").backing_path == base_disk.path.absolute()
    assert {way: root_file(captured, f"/root/kept-{way}") for way in ways} == {"ssh": b"ssh", "unix": b"unix"}


def test_a_connection_that_cannot_be_is_told_in_libvirts_words(home: Home, empty_disk: Disk) -> None:
    with Ledger(ensure(home.ledger)).open("nowhere-1") as ledger:
        scratch = ensure(home.work("nowhere-1"))
        shape = MachineSpec(accelerator="tcg")
        request = Launch("build", empty_disk, shape, make_identity(scratch, "g", "root"), scratch, ledger, Reporter(Null()))
        with pytest.raises(HostError, match=r"qemu\+unix.*No such file") as error:
            with LibvirtBuilder(home, "qemu+unix:///system?socket=/nonexistent/sock").launch(request):
                pass
        assert error.value.code == "machine.libvirt-connect"
        assert list(ledger.directory.glob("*.json")) == []


@pytest.fixture
def other_user() -> Iterator[tuple[Path, list[str]]]:
    """The start of a command line that runs Python as somebody who is not root, with a home of their own."""
    python = Path("/usr/bin/python3")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not python.exists() or version not in subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout:
        pytest.skip(f"no Python {version} that another user may run")
    # a short path: the sockets of a session's libvirt and QEMU lie below it
    directory = Path(tempfile.mkdtemp(prefix="bake-user-"))
    directory.chmod(0o755)
    (directory / "run").mkdir()
    user = pwd.getpwnam(OTHER_USER)
    for path in (directory, directory / "run"):
        os.chown(path, user.pw_uid, user.pw_gid)
    shutil.copy(SCRIPT, directory / "hold.py")
    import libvirt

    places = {str(Path(__file__).parents[2]), str(Path(libvirt.__file__).parent)}
    environment = [f"HOME={directory}", f"XDG_RUNTIME_DIR={directory}/run", f"PYTHONPATH={':'.join(places)}", "PYTHONDONTWRITEBYTECODE=1"]
    prefix = ["runuser", "-u", OTHER_USER, "--", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
    yield directory, [*prefix, *environment, str(python)]
    for pid in directory.glob("run/libvirt/*.pid"):  # the daemons that libvirt started for the session
        try:
            os.kill(int(pid.read_text()), signal.SIGTERM)
        except (ValueError, ProcessLookupError):
            continue
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.parametrize("uri", ["qemu:///embed", "qemu:///session"])
def test_an_ordinary_user_needs_no_configuration(other_user: tuple[Path, list[str]], uri: str) -> None:
    directory, python = other_user
    disk = create_qcow2(directory / "disk.qcow2", 1 << 30)
    disk.path.chmod(0o644)
    argv = [*python, str(directory / "hold.py"), str(directory), "userbuild-1", str(disk.path), "leave", uri]
    result = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=180, cwd=directory)
    assert (result.returncode, result.stderr) == (0, "")
    port, runtime = result.stdout.split()
    assert int(port) > 0
    assert not Path(runtime).exists()
    assert list((directory / "state/ledger").glob("*/*.json")) == []
