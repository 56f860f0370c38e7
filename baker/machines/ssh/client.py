"""The SSH communicator: OpenSSH over one shared connection, which a child process of this one holds.

The standard input of the master client is a pipe from this process. However this process ends, the kernel closes the pipe, `cat` in the
guest reads end of file, and the connection closes. Every operation is one session over the master connection, because a connection of
its own takes up to two seconds on an emulated machine.
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
BANNER_SECONDS = 3.0  # timeout of one attempt to read the banner: an emulated sshd is slow to send it
HANDSHAKE_SECONDS = 60.0  # timeout of one attempt to log in
REFUSAL_SECONDS = 120.0  # how long a guest may refuse the keys: they are installed while it boots
KILL_SECONDS = 15.0  # timeout of the session that ends a command in the guest
SILENCE_SECONDS = 120.0  # an emulated guest that reboots writes to its console sooner, even on a busy host; else it hangs
PANIC = b"Kernel panic - not syncing"


@contextmanager
def connect(
    endpoint: Endpoint, identity: Identity, machine: Machine, scratch: Path, *, report: Reporter, timeout: float
) -> Iterator[SshCommunicator]:
    """Connect to `machine` as soon as it answers, and close the connection on exit.

    The SSH configuration and the known host key stay in `scratch`: a person can log in with them while the machine runs. BootError when
    the machine does not answer within `timeout` seconds.
    """
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
        silence: float = SILENCE_SECONDS,  # seconds without console output after which a rebooting guest counts as hung
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
        self._check_transfer(f"write {destination}", result.returncode, result.stderr)

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
        boot, known_up = _BootWatch(self._machine, self._report, self._silence if self._was_up else None), self._machine.restored
        refused_at: float | None = None
        reason = "nothing listens on its SSH port"
        while True:
            left = started + timeout - time.monotonic()
            if not self._machine.running():
                raise self._boot_error("the machine stopped before SSH answered", "see its console log", code="machine.stopped")
            if left <= 0 or (refused_at is not None and time.monotonic() - refused_at > REFUSAL_SECONDS):
                raise self._login_error(time.monotonic() - started, reason, refused=refused_at is not None)
            if boot.has_failed():
                raise self._boot_error(
                    "the guest's kernel panicked, and panicked again after a reset", "see its console log", code="machine.kernel-panic"
                )
            if known_up or self._endpoint.proxy_command or _has_banner(self._endpoint, min(left, BANNER_SECONDS)):
                failure = self._log_in(min(left, HANDSHAKE_SECONDS))
                if failure is None:
                    self._was_up = True
                    return
                if "Permission denied" in failure or "verification failed" in failure:
                    reason, refused_at = failure, refused_at or time.monotonic()
                    boot.ssh_answered()
                elif refused_at is None:
                    reason = failure
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
            self._report.debug(f"the guest did not answer within {KILL_SECONDS:.0f} s of the request to end a command")

    def _transfer(self, what: str, script: str, *, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None) -> None:
        source: int | IO[bytes] = stdin or subprocess.DEVNULL
        with process.spawn(self._argv(script), stdin=source, stdout=stdout or subprocess.DEVNULL) as child:
            assert child.stderr
            stderr = child.stderr.read().decode("utf-8", "replace")
            exit_code = child.wait()
        self._check_transfer(what, exit_code, stderr)

    def _check_transfer(self, what: str, exit_code: int, stderr: str) -> None:
        """Raise Disconnected or BuildError unless ssh ended with exit code 0."""
        if exit_code == session.LOST:
            raise Disconnected(f"the connection was lost: {stderr.strip()}")
        if exit_code != 0:
            reason = stderr.strip() or f"exit code {exit_code}"
            raise BuildError(f"cannot {what} in the guest: {reason}", code="machine.transfer-failed")

    def _log_in(self, timeout: float) -> str | None:
        """Open the master connection. Returns why that failed, or None when it is open."""
        self._control.unlink(missing_ok=True)
        ready = secrets.token_hex(8)
        with ExitStack() as stack:
            argv = [self._ssh, "-F", str(self._config), "-o", "ControlMaster=yes", self._host, f"echo {ready}; exec cat >/dev/null"]
            child = stack.enter_context(process.spawn(argv, stdin=subprocess.PIPE))
            failure = _wait_until_ready(child, ready.encode(), timeout)
            if failure is None:
                self._master = stack.pop_all()
        return failure

    def _login_error(self, seconds: float, reason: str, *, refused: bool) -> BootError:
        if refused:
            hint = "the image must read its keys from systemd credentials or cloud-init; ssh_username must be a user who may log in"
            return self._boot_error(f"SSH refused the login for {seconds:.0f} s: {reason}", hint, code="machine.ssh-refused")
        hint = "raise ssh_timeout, or see the console log"
        return self._boot_error(f"timed out after {seconds:.0f} s waiting for SSH: {reason}", hint, code="machine.ssh-timeout")

    def _boot_error(self, message: str, hint: str, *, code: str) -> BootError:
        return BootError(message, console=self._machine.console_tail(), hint=hint, code=code)


class _BootWatch:
    """Watches the console of a booting guest for a kernel panic and, under emulation, for a hang.

    About once in some hundred boots, an emulated kernel panics or hangs before its first output, because it patches code that another
    processor is running. The machine is then reset, once. A second panic has another cause.

    `silence`: seconds without console output after which a guest that was up before counts as hung; None switches this check off.
    """

    def __init__(self, machine: Machine, report: Reporter, silence: float | None) -> None:
        self._machine, self._report = machine, report
        self._silence = silence if machine.facts.accelerator == "tcg" else None
        self._since = time.monotonic()
        self._size, self._panics = self._read_console()
        self._resets = 0

    def has_failed(self) -> bool:
        """Whether the kernel panicked again after a reset. Resets the machine at the first panic, or when it hangs."""
        size, panics = self._read_console()
        if panics != self._panics:
            if self._resets:
                return True
            self._reset("the guest's kernel panicked while booting")
        elif size != self._size:
            self._silence = None  # there is output: the kernel is booting
        elif self._silence is not None and time.monotonic() - self._since > self._silence:
            self._reset(f"the rebooting guest has neither answered nor written to its console for {self._silence:.0f} s")
        return False

    def ssh_answered(self) -> None:
        """Note that the guest's SSH server answered, even with a refusal: the guest does not hang."""
        self._silence = None

    def _reset(self, why: str) -> None:
        self._report.warn(f"{why}: resetting the machine")
        self._silence, self._resets = None, 1
        self._machine.reset()
        self._size, self._panics = self._read_console()

    def _read_console(self) -> tuple[int, int]:
        """The size of the console log in bytes, and the number of kernel panics in it."""
        try:
            log = self._machine.console_log.read_bytes()
        except OSError:
            return 0, 0
        return len(log), log.count(PANIC)


def _wait_until_ready(child: subprocess.Popen[bytes], mark: bytes, timeout: float) -> str | None:
    """Read the streams of the master client until stdout has `mark`. Returns None then, else why the login failed."""
    assert child.stdout and child.stderr
    received = {child.stdout: b"", child.stderr: b""}
    deadline = time.monotonic() + timeout
    open_streams = [child.stdout, child.stderr]
    while open_streams:
        ready, _, _ = select.select(open_streams, [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return f"the login took longer than {timeout:.0f} s"
        for stream in ready:
            chunk = stream.read1(4096)  # type: ignore[attr-defined]
            received[stream] += chunk
            if not chunk:
                open_streams.remove(stream)
        if mark in received[child.stdout]:
            return None
    errors = received[child.stderr].decode("utf-8", "replace").strip().splitlines()
    return errors[-1] if errors else "ssh ended without an error message"


def _has_banner(endpoint: Endpoint, timeout: float) -> bool:
    """Whether an SSH server sends its identification (RFC 4253, 4.2) within `timeout` seconds.

    This needs no key exchange. A connection alone proves nothing: QEMU's port forward accepts it even when the guest does not listen.
    """
    try:
        with socket.create_connection((endpoint.host, endpoint.port), timeout) as connection:
            connection.settimeout(timeout)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _absolute(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise BuildError(f"{path!r} is not an absolute path in the guest", code="machine.path-not-absolute")
    return path
