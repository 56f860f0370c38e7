"""One command over the shared connection: write its input, stream its output, get its exit code, enforce its timeout."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import IO, Literal

from baker.core.errors import BuildError
from baker.core.process import spawn
from baker.machines.ssh.communicator import CommandResult, Disconnected, GuestTimeout, OnOutput

KEPT_BYTES = 1 << 20  # of each stream
LONGEST_LINE = 1 << 16  # bytes; a longer line is delivered in parts
MARKER_ROOM = 128  # bytes, at least the length of a marker: carried over to the next part, since a marker may be split there
LOST = 255  # ssh's exit code when the connection is lost or cannot be opened
LINGER_SECONDS = 1.0  # how long to wait for the client after the script has ended: a daemon may hold its streams open
KILL_PATIENCE_SECONDS = 20.0  # how long to wait for the end markers after the script was killed

StreamName = Literal["stdout", "stderr"]


class _Stream(threading.Thread):
    """Reads one stream of a command up to its end marker or end of file, and delivers its lines."""

    def __init__(self, pipe: IO[bytes], name: StreamName, token: str, deliver: OnOutput, done: threading.Condition) -> None:
        super().__init__(daemon=True, name=f"ssh-{name}")
        self.pipe, self.stream, self.deliver, self.condition = pipe, name, deliver, done
        self.start_mark = f"{token}-start".encode()
        self.end_mark = re.compile(rf"{token}-end (\d+)\n".encode())
        self.kept: deque[str] = deque()
        self.size = 0
        self.started = False
        self.ended = False  # end of file, or the end marker was read
        self.exit_code: int | None = None

    @property
    def text(self) -> str:
        return "".join(self.kept)

    def run(self) -> None:
        try:
            self._read()
        except ValueError:
            pass  # `execute` closed the pipe
        finally:
            with self.condition:
                self.ended = True
                self.condition.notify_all()

    def _read(self) -> None:
        carried = b""
        while True:
            chunk = self.pipe.readline(LONGEST_LINE)
            if not chunk:
                self._emit(carried)
                return
            line = carried + chunk
            carried = b""
            if not line.endswith(b"\n"):
                line, carried = line[:-MARKER_ROOM], line[-MARKER_ROOM:]
            elif found := self.end_mark.search(line):
                self._emit(line[: found.start()])
                self.exit_code = int(found[1])
                return
            elif line.rstrip() == self.start_mark:
                self.started = True
                continue
            self._emit(line)

    def _emit(self, raw: bytes) -> None:
        if not raw:
            return
        text = raw.decode("utf-8", "replace")
        self.kept.append(text)
        self.size += len(text)
        while self.size > KEPT_BYTES and len(self.kept) > 1:
            self.size -= len(self.kept.popleft())
        self.deliver(text.rstrip("\r\n"), self.stream)


class _Deliver:
    """Calls `on_output` with one line at a time. Its first error is stored for the caller; the streams are still read to their end."""

    def __init__(self, on_output: OnOutput | None) -> None:
        self.on_output = on_output
        self.lock = threading.Lock()
        self.error: BaseException | None = None

    def __call__(self, line: str, stream: StreamName) -> None:
        with self.lock:
            if self.on_output is None or self.error is not None:
                return
            try:
                self.on_output(line, stream)
            except BaseException as error:  # raised by `execute`
                self.error = error


def execute(
    argv: Sequence[str], payload: bytes, token: str, *, timeout: float | None, on_output: OnOutput | None, kill: Callable[[], None]
) -> CommandResult:
    """Run `argv` (ssh with remote.run_script) with `payload` on stdin, and return the script's result. `timeout` in seconds.

    `kill` ends the script in the guest over another session. Raises GuestTimeout, Disconnected, and BuildError when the script
    could not be started (no such user, no sudo, no space).
    """
    started = time.monotonic()
    deliver = _Deliver(on_output)
    over = threading.Condition()
    with spawn(argv, stdin=subprocess.PIPE) as child:
        assert child.stdin and child.stdout and child.stderr
        out = _Stream(child.stdout, "stdout", token, deliver, over)
        err = _Stream(child.stderr, "stderr", token, deliver, over)
        feeder = threading.Thread(target=_feed, args=(child.stdin, payload), daemon=True)
        for thread in (out, err, feeder):
            thread.start()
        in_time = _wait_for(over, (out, err), timeout)
        if not in_time:
            kill()
            _wait_for(over, (out, err), KILL_PATIENCE_SECONDS)
        try:
            child.wait(LINGER_SECONDS)
        except subprocess.TimeoutExpired:
            pass  # a daemon that the script started holds a stream: `spawn` ends the client
        returncode = child.poll()
    if deliver.error is not None:
        raise deliver.error
    if not in_time:
        raise GuestTimeout(f"timed out after {timeout:g} s and was ended")
    code = err.exit_code if err.exit_code is not None else out.exit_code
    if code is None:
        raise _unfinished(err, returncode)
    return CommandResult(code, out.text, err.text, time.monotonic() - started)


def _wait_for(condition: threading.Condition, streams: Sequence[_Stream], timeout: float | None) -> bool:
    with condition:
        return condition.wait_for(lambda: all(stream.ended for stream in streams), timeout)


def _unfinished(err: _Stream, returncode: int | None) -> Exception:
    """The error for a script without an end marker: the connection was lost, or the script never started."""
    stderr = err.text.strip()
    if err.started or returncode in (LOST, None):
        return Disconnected("the connection was lost" + (f": {stderr.splitlines()[-1]}" if stderr else ""))
    return BuildError(
        f"the guest could not start the command (exit code {returncode}): {stderr or 'no error message'}",
        hint="ssh_username must be root, or a user who may become root with sudo without a password",
        code="machine.command-not-started",
    )


def _feed(stream: IO[bytes], data: bytes) -> None:
    try:
        stream.write(data)
        stream.close()
    except (BrokenPipeError, ValueError):
        pass  # the command ended without reading its input: its exit code says how it went
