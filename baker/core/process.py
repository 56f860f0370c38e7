"""Run commands on the host: with argument lists, in a clean environment, and with every child reaped. No other module does.

Every child has the build's id in the variable `BAKE_BUILD_ID`, which this process's environment has as well. With it, `bake sweep` ends
the processes that a killed build left running, and no others.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from baker.core.errors import BakeError, HostError

BUILD_ID_VARIABLE = "BAKE_BUILD_ID"
PASSED_VARIABLES = (
    "PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TZ", "SSH_AUTH_SOCK", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", BUILD_ID_VARIABLE,
)  # fmt: skip
TAIL_LINES = 40
GRACE_SECONDS = 5.0


class CommandError(BakeError):
    """A command on the host failed. `result` has its output."""

    exit_code = 6
    default_code = "host.command-failed"

    def __init__(self, message: str, result: Result, *, hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.result = result


class CommandTimeout(CommandError):
    """A command on the host timed out and was ended."""

    default_code = "host.command-timeout"


@dataclass(frozen=True)
class Result:
    """The result of a command. `stdout` is complete unless lines were streamed; `stderr` is the last lines."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def tail(self) -> str:
        return (self.stderr or self.stdout).strip()


def need(tool: str, *, package: str = "") -> str:
    """The path of `tool`. HostError, whose hint has the Debian package, when it is not installed."""
    path = shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/sbin:/usr/local/sbin")
    if path is None:
        raise HostError(f"{tool} is not installed", hint=f"apt-get install {package or tool}", code="host.tool-missing")
    return path


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of children: some variables of this process, a fixed locale, and `extra`."""
    passed = {name: os.environ[name] for name in PASSED_VARIABLES if name in os.environ}
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **passed, "LC_ALL": "C.UTF-8", **(extra or {})}


def run(
    argv: Sequence[str | Path],
    *,
    check: bool = True,
    input: bytes | str | None = None,  # noqa: A002 - subprocess's own word
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
    on_line: Callable[[str], None] | None = None,
    what: str = "",
) -> Result:
    """Run `argv` to its end.

    `on_line` is called with every line of stdout and stderr as it is read; the result then has only the last lines. `what` names the
    work in an error ("lay out the file system"). Raises CommandError for an exit code other than 0 if `check`, CommandTimeout after
    `timeout` seconds, HostError when the program cannot be started.
    """
    started = time.monotonic()
    data = input.encode() if isinstance(input, str) else input
    with spawn(argv, env=env, cwd=cwd, stdin=subprocess.PIPE if data is not None else subprocess.DEVNULL) as child:
        out: deque[str] = deque(maxlen=TAIL_LINES if on_line else None)
        err: deque[str] = deque(maxlen=TAIL_LINES)
        threads = [
            threading.Thread(target=_read_lines, args=(child.stdout, out, on_line), daemon=True),
            threading.Thread(target=_read_lines, args=(child.stderr, err, on_line), daemon=True),
        ]
        if data is not None:
            threads.append(threading.Thread(target=_feed, args=(child.stdin, data), daemon=True))
        for thread in threads:
            thread.start()
        timed_out = False
        try:
            _wait(child, timeout)
        except subprocess.TimeoutExpired:
            timed_out = True
            end(child)
        for thread in threads:
            thread.join(GRACE_SECONDS)
    result = Result(tuple(map(str, argv)), child.returncode, "".join(out), "".join(err), time.monotonic() - started)
    name = what or Path(str(argv[0])).name
    if timed_out:
        raise CommandTimeout(f"{name} timed out after {timeout:g} s\n{result.tail}".rstrip(), result)
    if check and result.returncode != 0:
        raise CommandError(f"{name} failed with exit code {result.returncode}\n{shlex.join(result.argv)}\n{result.tail}".rstrip(), result)
    return result


@contextmanager
def spawn(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] = subprocess.PIPE,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start `argv` in its own session, where a Ctrl-C at the terminal does not reach it, and end it when the context ends."""
    try:
        child = subprocess.Popen(
            [str(arg) for arg in argv], env=environment(env), cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
        )
    except FileNotFoundError as error:
        raise HostError(f"{argv[0]} is not installed", code="host.tool-missing") from error
    except OSError as error:
        raise HostError(f"cannot start {argv[0]}: {error.strerror}", code="host.cannot-start") from error
    try:
        yield child
    finally:
        end(child)
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    pass


def interactive(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> int:
    """Run `argv` on this process's terminal and return its exit code, or 128 plus the number of the signal that ended it.

    The child is in the terminal's foreground process group, so it reads the keys. Meanwhile this process ignores a Ctrl-C, which the child
    gets as well.
    """
    child = None
    before = signal.getsignal(signal.SIGINT)
    on_main_thread = threading.current_thread() is threading.main_thread()
    if on_main_thread:
        signal.signal(signal.SIGINT, lambda number, frame: None)  # not SIG_IGN, which the child would inherit
    try:
        child = subprocess.Popen([str(arg) for arg in argv], env=environment({"TERM": os.environ.get("TERM", "dumb"), **(env or {})}))
        code = child.wait()
        return code if code >= 0 else 128 - code
    except FileNotFoundError as error:
        raise HostError(f"{argv[0]} is not installed", code="host.tool-missing") from error
    finally:
        if child is not None and child.poll() is None:
            child.terminate()
            try:
                child.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if on_main_thread:
            signal.signal(signal.SIGINT, before)


def _wait(child: subprocess.Popen[bytes], timeout: float | None) -> None:
    """Wait for the end of a child; TimeoutExpired after `timeout` seconds. The kernel tells when that is: `Popen.wait` with a timeout looks
    again and again, up to 50 ms apart."""
    if timeout is not None:
        try:
            handle = os.pidfd_open(child.pid)
        except OSError:
            child.wait(timeout)
            return
        try:
            ended = select.poll()
            ended.register(handle, select.POLLIN)
            ended.poll(timeout * 1000)
        finally:
            os.close(handle)
        timeout = 0
    child.wait(timeout)


def end(child: subprocess.Popen[bytes]) -> None:
    """End a child started by `spawn` and its process group: with SIGTERM, and after a few seconds with SIGKILL."""
    if child.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            pass
        try:
            child.wait(GRACE_SECONDS)
            return
        except subprocess.TimeoutExpired:
            continue


def _read_lines(stream: IO[bytes] | None, lines: deque[str], on_line: Callable[[str], None] | None) -> None:
    if stream is None:
        return
    try:
        for raw in stream:
            line = raw.decode("utf-8", "replace")
            lines.append(line)
            if on_line:
                on_line(line.rstrip("\r\n"))
    except ValueError:
        return  # `spawn` closed the stream while a grandchild still held the other end


def _feed(stream: IO[bytes] | None, data: bytes) -> None:
    if stream is None:
        return
    try:
        stream.write(data)
        stream.close()
    except (BrokenPipeError, ValueError):
        pass  # the child ended without reading its input: its exit code says how it went
