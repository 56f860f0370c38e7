"""The SSH communicator against a real sshd on loopback: no machine needed, so that many edge cases stay cheap."""

from __future__ import annotations

import base64
import io
import os
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from baker.core import process
from baker.core.errors import BootError, BuildError, UsageError
from baker.core.events import Memory, Message, Null, Reporter
from baker.core.model import Endpoint, Identity, MachineFacts
from baker.machines.identity import make_identity
from baker.machines.ssh.client import SshCommunicator, connect
from baker.machines.ssh.communicator import Disconnected, GuestTimeout
from tests.support.until import until

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="an sshd that lets root in must be started by root")
REPORT = Reporter(Null())


@dataclass
class Server:
    """An sshd of the test's own, standing in for a machine."""

    name: str
    runtime: Path
    port: int
    config: Path
    child: subprocess.Popen[bytes] | None = None
    has_power: bool = True
    restored: bool = False
    resets: int = 0
    when_reset: Callable[[], None] = lambda: None

    def start(self) -> None:
        argv = [process.need("sshd"), "-D", "-e", "-f", str(self.config)]
        log = (self.runtime / "sshd.log").open("ab")
        self.child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True)

    def stop(self) -> None:
        if self.child is not None:
            self.child.terminate()
            self.child.wait(10)
            self.child = None

    @property
    def facts(self) -> MachineFacts:
        return MachineFacts("QEMU", "tcg", "", "q35", "")

    @property
    def console_log(self) -> Path:
        return self.runtime / "console.log"

    def running(self) -> bool:
        return self.has_power

    def reset(self) -> None:
        self.resets += 1
        self.when_reset()

    def console_tail(self, lines: int = 20) -> tuple[str, ...]:
        return ("Kernel panic - not syncing: the last words",)


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return make_identity(tmp_path_factory.mktemp("identity"), "guest", "root")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, identity: Identity) -> Iterator[Server]:
    with _server(tmp_path_factory.mktemp("s"), identity) as server:
        server.start()
        yield server


@pytest.fixture(scope="module")
def guest(server: Server, identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshCommunicator]:
    scratch = tmp_path_factory.mktemp("scratch")
    with connect(Endpoint("127.0.0.1", server.port), identity, server, scratch, report=REPORT, timeout=30) as communicator:  # type: ignore[arg-type]
        yield communicator


@contextmanager
def _server(directory: Path, identity: Identity) -> Iterator[Server]:
    """A configured sshd that does not run yet; ended on leaving."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    Path("/run/sshd").mkdir(exist_ok=True)
    keys = directory / "authorized_keys"
    keys.write_text(identity.client_public + "\n")
    config = directory / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {identity.host_key}\nAuthorizedKeysFile {keys}\n"
        "PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n"
    )
    server = Server("test", directory, port, config)
    try:
        yield server
    finally:
        server.stop()


# --- run -----------------------------------------------------------------------------------------------------------------


def test_streams_are_kept_apart_and_handed_on_line_by_line(guest: SshCommunicator) -> None:
    heard: list[tuple[str, str]] = []
    result = guest.run("echo one; echo two >&2; printf three", on_output=lambda line, stream: heard.append((stream, line)))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "one\nthree", "two\n")
    assert sorted(heard) == [("stderr", "two"), ("stdout", "one"), ("stdout", "three")]


@pytest.mark.parametrize("code", [0, 1, 3, 100, 125, 254, 255])
def test_every_exit_code_is_the_scripts_own(guest: SshCommunicator, code: int) -> None:
    assert guest.run(f"exit {code}").exit_code == code


def test_the_first_failing_command_ends_the_script(guest: SshCommunicator) -> None:
    result = guest.run("echo before; false; echo after")
    assert (result.exit_code, result.stdout) == (1, "before\n")


def test_a_script_that_dies_of_a_signal_has_the_shells_exit_code(guest: SshCommunicator) -> None:
    assert guest.run("kill -KILL $$").exit_code == 137


AWKWARD = "a'b\"c $HOME `id` \\ \n second line\n\ttab ünïcödé !! ; rm -rf / & | > %s {} ~ *\n"


def test_environment_and_script_survive_quoting(guest: SshCommunicator) -> None:
    result = guest.run('printf %s "$AWKWARD" | base64 -w0; printf " %s" "$EMPTY."', env={"AWKWARD": AWKWARD, "EMPTY": ""})
    encoded, empty = result.stdout.split(" ")
    assert base64.b64decode(encoded).decode() == AWKWARD
    assert empty == "."
    assert guest.run(f"cat <<'END' | base64 -w0\n{AWKWARD}END\n").stdout == base64.b64encode(AWKWARD.encode()).decode()


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_no_name_in_an_environment_disturbs_how_the_script_is_started(guest: SshCommunicator, user: str) -> None:
    env = dict.fromkeys(("d", "env", "n", "line", "user", "start", "setsid", "found", "home", "login", "p", "code", "BAKE_ENV"), "/nowhere")
    script = "".join(f'echo "${name}"\n' for name in env)
    assert guest.run(script, env=env, user=user).stdout == "/nowhere\n" * len(env)


@pytest.mark.parametrize(("env", "text"), [({"A-B": "x"}, "A-B"), ({"1A": "x"}, "1A"), ({"A": "x\0y"}, "NUL"), ({"": "x"}, "''")])
def test_an_environment_that_no_shell_can_hold_is_refused(guest: SshCommunicator, env: dict[str, str], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        guest.run("true", env=env)


def test_a_command_that_reads_stdin_does_not_eat_the_script(guest: SshCommunicator) -> None:
    assert guest.run("cat; head -c 5; read x || echo none\necho still here").stdout == "none\nstill here\n"


def _scripts() -> list[Path]:
    return [*Path("/run").glob("bake-*"), *Path("/dev/shm").glob("bake-*")]


def test_secrets_are_in_no_argument_list_and_leave_no_file(guest: SshCommunicator) -> None:
    before = _scripts()  # the guest is this host: a killed test run may have left some
    seen: list[str] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    if b"hunter2" in path.read_bytes():
                        seen.append(path.read_bytes().decode())
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    guest.run("echo $SECRET hunter2-literal >/dev/null; sleep 0.5", env={"SECRET": "hunter2-in-env"})
    done.set()
    watcher.join()
    assert seen == []
    until(lambda: _scripts() == before, 10, "the script leaves no file")


def test_the_environment_is_the_users_and_does_not_speak_of_the_connection(guest: SshCommunicator) -> None:
    lines = dict(line.split("=", 1) for line in guest.run("env").stdout.splitlines() if "=" in line)
    assert (lines["HOME"], lines["USER"], lines["LANG"]) == ("/root", "root", "C.UTF-8")
    assert lines["PATH"].split(":")[:2] == ["/usr/local/sbin", "/usr/local/bin"]
    assert not [name for name in lines if name.startswith(("SSH_", "SUDO_"))]


def test_another_user_keeps_the_environment_and_is_at_home(guest: SshCommunicator) -> None:
    result = guest.run('id -un; echo "$TOKEN $HOME $USER"; pwd', user="games", env={"TOKEN": "kept 'too'"})
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "games"
    assert lines[1].startswith("kept 'too' ") and lines[1].endswith(" games")


def test_a_user_that_does_not_exist_is_named(guest: SshCommunicator) -> None:
    with pytest.raises(BuildError, match="no user nobody-here"):
        guest.run("true", user="nobody-here")


def test_working_directory_and_shell(guest: SshCommunicator) -> None:
    assert guest.run("pwd", cwd="/usr/share").stdout == "/usr/share\n"
    assert guest.run("set -o pipefail; echo ${BASH_VERSION:+bash}", shell="/bin/bash").stdout == "bash\n"
    assert guest.run("true", cwd="/no/such/directory").exit_code != 0


def test_a_lot_of_output_is_streamed_whole_and_kept_in_part(guest: SshCommunicator) -> None:
    count = 0

    def on_output(line: str, stream: str) -> None:
        nonlocal count
        count += 1

    result = guest.run("seq 1 400000; seq 1 1000 >&2", on_output=on_output)
    assert count == 401000
    assert result.stdout.endswith("399999\n400000\n")
    assert 900_000 < len(result.stdout) <= 1 << 20
    assert result.stderr.startswith("1\n2\n")


def test_a_very_long_line_and_bytes_that_are_no_text(guest: SshCommunicator) -> None:
    result = guest.run("head -c 300000 /dev/zero | tr '\\0' x; printf '\\377\\376'")
    assert result.stdout == "x" * 300_000 + "\ufffd\ufffd"


def test_a_daemon_that_keeps_the_streams_does_not_hold_the_step(guest: SshCommunicator) -> None:
    started = time.monotonic()
    result = guest.run("sleep 30 & echo $! ")
    assert result.exit_code == 0
    assert time.monotonic() - started < 10
    guest.run(f"kill {result.stdout.strip()}")


def test_a_step_that_hangs_is_ended_with_its_children(guest: SshCommunicator, tmp_path: Path) -> None:
    started = time.monotonic()
    pids = tmp_path / "pids"
    with pytest.raises(GuestTimeout, match="2 s"):
        guest.run(f"trap '' TERM; sleep 300 & echo $! >{pids}; echo $$ >>{pids}; while :; do sleep 1; done", timeout=2)
    assert time.monotonic() - started < 20
    for pid in pids.read_text().split():
        assert not _alive(int(pid))


def _alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_what_a_listener_raises_comes_out_of_run(guest: SshCommunicator) -> None:
    def on_output(line: str, stream: str) -> None:
        raise ValueError("broken listener")

    with pytest.raises(ValueError, match="broken listener"):
        guest.run("seq 1 100000", on_output=on_output)


# --- put, put_tree, get --------------------------------------------------------------------------------------------------


def test_put_writes_bytes_mode_and_owner_and_makes_parents(guest: SshCommunicator, tmp_path: Path) -> None:
    target = tmp_path / "a b" / "it's" / "file"
    data = bytes(range(256)) * 1000
    guest.put(data, str(target), mode=0o4750, owner="games", group="nogroup")
    assert target.read_bytes() == data
    found = target.stat()
    assert (found.st_mode & 0o7777, target.owner(), target.group()) == (0o4750, "games", "nogroup")
    assert target.parent.stat().st_mode & 0o777 == 0o755
    guest.put(b"", str(target))
    assert target.read_bytes() == b""
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("destination", ["relative/path", ""])
def test_put_wants_an_absolute_path(guest: SshCommunicator, destination: str) -> None:
    with pytest.raises(BuildError) as error:
        guest.put(b"x", destination)
    assert error.value.code == "machine.path-not-absolute"


def test_put_refuses_a_directory_and_an_unknown_owner(guest: SshCommunicator, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="is a directory"):
        guest.put(b"x", str(tmp_path))
    with pytest.raises(BuildError, match="nobody-here"):
        guest.put(b"x", str(tmp_path / "file"), owner="nobody-here")
    assert list(tmp_path.iterdir()) == []


def test_a_tree_keeps_modes_and_owners_and_follows_directory_links(guest: SshCommunicator, tmp_path: Path) -> None:
    archive = tmp_path / "tree.tar"
    with tarfile.open(archive, "w") as tar:
        for name, mode in (("bin", 0o755), ("etc", 0o750)):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, mode
            tar.addfile(directory)
        member = tarfile.TarInfo("bin/tool")
        member.size, member.mode, member.uname = 4, 0o4755, "games"
        tar.addfile(member, io.BytesIO(b"#!sh"))
    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    guest.put_tree(archive, str(root))
    assert (root / "bin").is_symlink()
    tool = root / "usr/bin/tool"
    assert (tool.read_bytes(), tool.stat().st_mode & 0o7777, tool.owner()) == (b"#!sh", 0o4755, "games")
    assert (root / "etc").stat().st_mode & 0o777 == 0o750


def test_a_broken_tar_is_an_error(guest: SshCommunicator, tmp_path: Path) -> None:
    (tmp_path / "broken.tar").write_bytes(b"this is no tar" * 100)
    with pytest.raises(BuildError, match="tar"):
        guest.put_tree(tmp_path / "broken.tar", str(tmp_path / "out"))


def test_get_copies_and_leaves_nothing_behind_on_failure(guest: SshCommunicator, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3_000_000))
    guest.get(str(source), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    with pytest.raises(BuildError, match="No such file"):
        guest.get(str(tmp_path / "absent"), tmp_path / "nothing")
    with pytest.raises(BuildError, match="directory"):
        guest.get(str(tmp_path), tmp_path / "nothing")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "source"]


# --- the connection ------------------------------------------------------------------------------------------------------


def test_the_configuration_lets_other_tools_in_over_the_same_connection(guest: SshCommunicator) -> None:
    argv = ["ssh", "-F", str(guest.ssh_config), guest.host, "echo $SSH_CONNECTION"]
    ports = {subprocess.run(argv, capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(ports) == 1 and ports != {""}


def test_a_boot_id_is_one(guest: SshCommunicator) -> None:
    assert guest.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_a_lost_connection_is_told_from_a_failed_command_and_can_be_made_again(tmp_path: Path, identity: Identity) -> None:
    with _server(tmp_path, identity) as server:
        server.start()
        with connect(Endpoint("127.0.0.1", server.port), identity, server, tmp_path, report=REPORT, timeout=30) as guest:  # type: ignore[arg-type]
            with pytest.raises(Disconnected):
                guest.run("kill -KILL $(ps -o ppid= -p $PPID); sleep 60", timeout=30)
            with pytest.raises((Disconnected, BuildError)):
                server.stop()
                guest.disconnect()
                guest.put(b"x", str(tmp_path / "file"))
            late = threading.Timer(1.0, server.start)
            late.start()
            guest.wait(30)
            assert guest.run("echo back").stdout == "back\n"
            late.join()
        assert not list(tmp_path.glob("*.ssh"))


def test_a_guest_without_ssh_gives_a_boot_error_with_the_console(tmp_path: Path, identity: Identity) -> None:
    with _server(tmp_path, identity) as server:
        with pytest.raises(BootError, match="nothing listens") as error:
            with connect(Endpoint("127.0.0.1", server.port), identity, server, tmp_path, report=REPORT, timeout=1.5):  # type: ignore[arg-type]
                pass
        assert error.value.code == "machine.ssh-timeout"
        assert "the last words" in error.value.console[0]


PANIC = "[    2.2] Kernel panic - not syncing: Fatal exception in interrupt\n"


def test_a_kernel_that_panics_once_as_it_boots_is_started_again(identity: Identity, tmp_path: Path) -> None:
    with _server(tmp_path, identity) as server:
        server.when_reset = server.start
        threading.Timer(0.5, lambda: server.console_log.write_text(PANIC)).start()
        events = Memory()
        endpoint = Endpoint("127.0.0.1", server.port)
        with connect(endpoint, identity, server, tmp_path, report=Reporter(events), timeout=30) as communicator:  # type: ignore[arg-type]
            assert communicator.run("echo up").stdout == "up\n"
        assert server.resets == 1
        assert ["panicked" in event.text for event in events.events if isinstance(event, Message)] == [True]


def test_a_kernel_that_panics_again_is_given_up_at_once(identity: Identity, tmp_path: Path) -> None:
    with _server(tmp_path, identity) as server:
        server.when_reset = lambda: threading.Timer(0.5, lambda: server.console_log.write_text(PANIC * 2)).start()
        threading.Timer(0.2, lambda: server.console_log.write_text(PANIC)).start()
        endpoint = Endpoint("127.0.0.1", server.port)
        with pytest.raises(BootError) as error:
            with connect(endpoint, identity, server, tmp_path, report=REPORT, timeout=600):  # type: ignore[arg-type]
                pass
        assert error.value.code == "machine.kernel-panic"
        assert server.resets == 1


@pytest.mark.parametrize(("word", "resets"), [("", 1), ("Loading Linux ...\n", 0)])
def test_a_guest_that_was_up_and_hangs_as_it_boots_again_is_reset(identity: Identity, tmp_path: Path, word: str, resets: int) -> None:
    with _server(tmp_path, identity) as server:
        server.console_log.write_text("login: ")
        server.start()
        guest = SshCommunicator(Endpoint("127.0.0.1", server.port), identity, server, tmp_path, REPORT, silence=3.0)  # type: ignore[arg-type]
        try:
            guest.wait(30)
            server.stop()
            server.when_reset = server.start
            guest.disconnect()  # which may take its time, and is no part of the silence
            threading.Timer(1.0, lambda: server.console_log.write_text("login: " + word)).start()
            if resets:
                guest.wait(30)
                assert guest.run("echo up").stdout == "up\n"
            else:
                with pytest.raises(BootError) as error:
                    guest.wait(8)
                assert error.value.code == "machine.ssh-timeout"
            assert server.resets == resets
        finally:
            guest.disconnect()


def test_a_stopped_machine_is_not_waited_for(tmp_path: Path, identity: Identity) -> None:
    with _server(tmp_path, identity) as server:
        server.has_power = False
        started = time.monotonic()
        with pytest.raises(BootError) as error:
            with connect(Endpoint("127.0.0.1", server.port), identity, server, tmp_path, report=REPORT, timeout=60):  # type: ignore[arg-type]
                pass
        assert error.value.code == "machine.stopped"
        assert time.monotonic() - started < 5


def test_another_host_key_is_refused(tmp_path: Path, identity: Identity) -> None:
    stranger = make_identity(tmp_path / "stranger", "x", "root")
    impostor = Identity("x", "root", identity.client_key, stranger.host_key)
    with _server(tmp_path, identity) as server:
        server.start()
        with pytest.raises(BootError, match="verification failed") as error:
            with connect(Endpoint("127.0.0.1", server.port), impostor, server, tmp_path, report=REPORT, timeout=3):  # type: ignore[arg-type]
                pass
        assert error.value.code == "machine.ssh-refused"


def test_another_client_key_is_refused(tmp_path: Path, identity: Identity) -> None:
    stranger = make_identity(tmp_path / "stranger", "x", "root")
    wrong = Identity("x", "root", stranger.client_key, identity.host_key)
    with _server(tmp_path, identity) as server:
        server.start()
        with pytest.raises(BootError, match="Permission denied") as error:
            with connect(Endpoint("127.0.0.1", server.port), wrong, server, tmp_path, report=REPORT, timeout=3):  # type: ignore[arg-type]
                pass
        assert error.value.code == "machine.ssh-refused"
