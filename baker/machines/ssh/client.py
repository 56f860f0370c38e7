"""The way into a machine: OpenSSH over one shared connection, held by a child process of ours.

The master client's standard input is a pipe from this process: however this process ends, the kernel closes it, the guest's
`cat` sees the end and the connection goes away. Every operation is one session over it, since a connection of its own costs
up to two seconds on an emulated machine.
"""

from __future__ import annotations

import secrets
import select
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from baker.core import process
from baker.core.errors import BootError, BuildError
from baker.core.events import Reporter
from baker.core.model import Endpoint, Identity
from baker.machines.base import Machine
from baker.machines.ssh import remote, session
from baker.machines.ssh.communicator import CommandResult, Disconnected, OnOutput
from baker.machines.ssh.config import known_hosts, ssh_config

POLL_SECONDS = 0.25
BANNER_SECONDS = 3.0  # an emulated sshd takes its time; a guest without one costs no longer than this per try
HANDSHAKE_SECONDS = 60.0  # one try to log in
REFUSAL_SECONDS = 120.0  # how long a guest may go on refusing us: its keys arrive while it boots
KILL_SECONDS = 15.0
SILENCE_SECONDS = 120.0  # of an emulated guest that reboots: no kernel takes that long to its first word, on a busy host either
PANIC = b"Kernel panic - not syncing"


@contextmanager
def connect(
    endpoint: Endpoint, identity: Identity, machine: Machine, scratch: Path, *, report: Reporter, timeout: float
) -> Iterator[SshCommunicator]:
    """The connection to `machine` as soon as it answers; closed on leaving. What stays in `scratch` (the configuration and the known
    host key) lets a person in for as long as the machine lives. BootError when it does not answer within `timeout` seconds."""
    communicator = SshCommunicator(endpoint, identity, machine, scratch, report)
    try:
        communicator.wait(timeout)
        yield communicator
    finally:
        communicator.disconnect()


class SshCommunicator:
    """Implements baker.machines.ssh.communicator.Communicator."""

    def __init__(
        self,
        endpoint: Endpoint,
        identity: Identity,
        machine: Machine,
        scratch: Path,
        report: Reporter,
        *,
        silence: float = SILENCE_SECONDS,
    ) -> None:
        self._endpoint, self._identity, self._machine, self._report = endpoint, identity, machine, report
        self._silence = silence
        self._was_up = False
        self._ssh = process.need("ssh", package="openssh-client")
        self._master: ExitStack | None = None
        self._host = f"bake-{machine.name}"
        self._config = scratch / "ssh_config"
        self._control = machine.runtime / f"{machine.name}.ssh"
        hosts = scratch / "known_hosts"
        hosts.write_text(known_hosts(self._host, identity))
        self._config.write_text(ssh_config(self._host, endpoint, identity, known_hosts=hosts, control_path=self._control))

    @property
    def ssh_config(self) -> Path:
        return self._config

    @property
    def host(self) -> str:
        return self._host

    def run(
        self,
        script: str,
        *,
        user: str = "root",
        env: Mapping[str, str] | None = None,
        shell: str = "/bin/sh",
        timeout: float | None = None,
        on_output: OnOutput | None = None,
        cwd: str | None = None,
    ) -> CommandResult:
        token = secrets.token_hex(8)
        exported = remote.environment_file(env or {})
        body = script.encode()
        text = remote.run_script(token, env_lines=exported.count(b"\n"), script_size=len(body), user=user, shell=shell, cwd=cwd)
        return session.execute(
            self._argv(text), exported + body + token.encode(), token, timeout=timeout, on_output=on_output, kill=lambda: self._kill(token)
        )

    def put(self, data: bytes, destination: str, *, mode: int = 0o644, owner: str = "root", group: str = "root") -> None:
        token = secrets.token_hex(4)
        script = remote.put_script(token, _absolute(destination), size=len(data), mode=mode, owner=owner, group=group)
        result = process.run(self._argv(script), input=data + token.encode(), check=False)
        self._judge(f"write {destination}", result.returncode, result.stderr)

    def put_tree(self, tar: Path, destination: str) -> None:
        with tar.open("rb") as file:
            self._transfer(f"unpack below {destination}", remote.put_tree_script(_absolute(destination)), stdin=file)

    def get(self, source: str, destination: Path) -> None:
        partial = destination.with_name(destination.name + ".part")
        try:
            with partial.open("wb") as file:
                self._transfer(f"read {source}", remote.get_script(_absolute(source)), stdout=file)
            partial.rename(destination)
        finally:
            partial.unlink(missing_ok=True)

    def disconnect(self) -> None:
        if self._master is not None:
            master, self._master = self._master, None
            master.close()
        self._control.unlink(missing_ok=True)

    def wait(self, timeout: float) -> None:
        self.disconnect()
        started = time.monotonic()
        boot, known_up = _Boot(self._machine, self._report, self._silence if self._was_up else None), self._machine.awake
        refused_at: float | None = None
        words = "nothing listens on its SSH port yet"
        while True:
            left = started + timeout - time.monotonic()
            if not self._machine.running():
                raise self._boot_error("the machine stopped before SSH answered", "its console says why")
            if left <= 0 or (refused_at is not None and time.monotonic() - refused_at > REFUSAL_SECONDS):
                seconds = time.monotonic() - started
                raise self._boot_error(
                    f"SSH did not let us in within {seconds:.0f} s: {words}", "raise ssh_timeout, or look at the console"
                )
            if boot.hopeless():
                raise self._boot_error("the guest's kernel panicked, and again after a reset", "its console says why")
            if known_up or self._endpoint.proxy_command or _banner(self._endpoint, min(left, BANNER_SECONDS)):
                refusal = self._log_in(min(left, HANDSHAKE_SECONDS))
                if refusal is None:
                    self._was_up = True
                    return
                if "Permission denied" in refusal or "verification failed" in refusal:
                    words, refused_at = refusal, refused_at or time.monotonic()
                    boot.answered()
                elif refused_at is None:
                    words = refusal
            known_up = False
            time.sleep(POLL_SECONDS)

    def boot_id(self) -> str:
        return self.run("cat /proc/sys/kernel/random/boot_id").stdout.strip()

    def _argv(self, script: str) -> list[str]:
        login = self._identity.username
        return [self._ssh, "-F", str(self._config), self._host, remote.command_line(script, login=login)]

    def _kill(self, token: str) -> None:
        try:
            process.run(self._argv(remote.kill_script(token)), check=False, timeout=KILL_SECONDS)
        except process.CommandTimeout:
            self._report.debug("the guest did not answer when a command in it was to be ended")

    def _transfer(self, what: str, script: str, *, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None) -> None:
        source: int | IO[bytes] = stdin or subprocess.DEVNULL
        with process.spawn(self._argv(script), stdin=source, stdout=stdout or subprocess.DEVNULL) as child:
            assert child.stderr
            words = child.stderr.read().decode("utf-8", "replace")
            code = child.wait()
        self._judge(what, code, words)

    def _judge(self, what: str, code: int, words: str) -> None:
        if code == session.LOST:
            raise Disconnected(f"the connection was lost: {words.strip()}")
        if code != 0:
            raise BuildError(f"cannot {what} in the guest: {words.strip() or f'exit code {code}'}")

    def _log_in(self, timeout: float) -> str | None:
        """Open the master connection; why it could not be, or None."""
        self._control.unlink(missing_ok=True)
        ready = secrets.token_hex(8)
        with ExitStack() as stack:
            argv = [self._ssh, "-F", str(self._config), "-o", "ControlMaster=yes", self._host, f"echo {ready}; exec cat >/dev/null"]
            child = stack.enter_context(process.spawn(argv, stdin=subprocess.PIPE))
            words = _until_ready(child, ready.encode(), timeout)
            if words is None:
                self._master = stack.pop_all()
        return words

    def _boot_error(self, message: str, hint: str) -> BootError:
        return BootError(message, console=self._machine.console_tail(), hint=hint)


class _Boot:
    """Watches the console of a guest that boots. An emulated kernel may trip over itself once in some hundred boots (it patches its own
    code while another processor runs it): it panics, or hangs before its first word. It is reset then, once; a second time is no accident.

    `silence`: seconds without a word after which a guest that was up before counts as hung; None where silence says nothing."""

    def __init__(self, machine: Machine, report: Reporter, silence: float | None) -> None:
        self._machine, self._report = machine, report
        self._silence = silence if machine.facts.accelerator == "tcg" else None
        self._since = time.monotonic()
        self._heard, self._panics = self._listen()
        self._resets = 0

    def hopeless(self) -> bool:
        """False while all is well, and after the reset that a panic or a long silence calls for; True at the second panic."""
        heard, panics = self._listen()
        if panics != self._panics:
            if self._resets:
                return True
            self._reset("the guest's kernel panicked as it booted")
        elif heard != self._heard:
            self._silence = None  # it has a voice, so it is on its way
        elif self._silence is not None and time.monotonic() - self._since > self._silence:
            self._reset(f"the guest was up, and for {self._silence:.0f} s now neither answers nor says a word on its console")
        return False

    def answered(self) -> None:
        """It speaks SSH, if only to refuse us: it does not hang."""
        self._silence = None

    def _reset(self, why: str) -> None:
        self._report.warn(f"{why}: resetting the machine")
        self._silence, self._resets = None, 1
        self._machine.reset()
        self._heard, self._panics = self._listen()

    def _listen(self) -> tuple[int, int]:
        """How many bytes the console has said, and how often that the kernel panicked."""
        try:
            said = self._machine.console_log.read_bytes()
        except OSError:
            return 0, 0
        return len(said), said.count(PANIC)


def _until_ready(child: subprocess.Popen[bytes], mark: bytes, timeout: float) -> str | None:
    """Read the master's streams until it says `mark`; None then, else what went wrong."""
    assert child.stdout and child.stderr
    heard = {child.stdout: b"", child.stderr: b""}
    deadline = time.monotonic() + timeout
    open_streams = [child.stdout, child.stderr]
    while open_streams:
        ready, _, _ = select.select(open_streams, [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return f"the login took longer than {timeout:.0f} s"
        for stream in ready:
            chunk = stream.read1(4096)  # type: ignore[attr-defined]
            heard[stream] += chunk
            if not chunk:
                open_streams.remove(stream)
        if mark in heard[child.stdout]:
            return None
    words = heard[child.stderr].decode("utf-8", "replace").strip().splitlines()
    return words[-1] if words else "ssh ended without a word"


def _banner(endpoint: Endpoint, timeout: float) -> bool:
    """Whether an SSH server introduces itself (RFC 4253, 4.2). Cheap: no key exchange. QEMU's forward accepts connections even
    while the guest has no listener, so that connecting alone proves nothing."""
    try:
        with socket.create_connection((endpoint.host, endpoint.port), timeout) as connection:
            connection.settimeout(timeout)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _absolute(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise BuildError(f"{path!r} is not an absolute path in the guest")
    return path
