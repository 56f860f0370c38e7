"""Runs commands and measures wall time, processor time and peak memory; stores each result as a JSON file.

Both tools start QEMU, Packer as its child, bake by way of a libvirt that detaches it. So that both are charged for their machines, this
process adopts what its children leave behind (PR_SET_CHILD_SUBREAPER, prctl(2)) and reads wait4(2)'s account of everything it reaps.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.guest import Line

PR_SET_CHILD_SUBREAPER = 36
COMMAND_SECONDS = 1800.0  # no single command of the benchmark takes this long
ORPHAN_SECONDS = 20.0  # that a detached process may run after its command has ended
CLEANUP_SECONDS = 90.0  # for a command that was asked to stop

Side = Literal["bake", "packer"]


class BenchError(Exception):
    """The benchmark cannot continue. The message is for users."""


@dataclass(frozen=True)
class Run:
    """A finished command. `cpu` and `peak` include all processes that it started, even detached ones."""

    argv: tuple[str, ...]
    started: float  # seconds since the epoch
    wall: float
    cpu: float  # user + system, seconds
    peak: int  # bytes, of the largest process
    exit_code: int
    lines: tuple[Line, ...]
    others: float = 0.0  # processor time of other processes and of other guests of the same hardware meanwhile, seconds

    @property
    def ended(self) -> float:
        return self.started + self.wall

    def ok(self) -> Run:
        """This run, if it succeeded; BenchError with its last lines otherwise."""
        if self.exit_code:
            tail = "\n".join(line.text for line in self.lines[-30:])
            raise BenchError(f"exit code {self.exit_code} from {' '.join(self.argv)}\n{tail}")
        return self


@dataclass(frozen=True)
class Measurement:
    """One number of the benchmark with its context; `more` are further figures by name."""

    case: str
    side: Side
    number: int  # which repetition, from 1
    wall: float
    cpu: float = 0.0
    peak: int = 0
    others: float = 0.0
    more: Mapping[str, float] = field(default_factory=dict)


def measured(case: str, side: Side, number: int, run: Run, more: Mapping[str, float] | None = None) -> Measurement:
    return Measurement(case, side, number, round(run.wall, 3), round(run.cpu, 2), run.peak, round(run.others, 2), dict(more or {}))


# -- results -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Results:
    """Measurements in a directory, one file each, so that an interrupted benchmark can continue.

    `subject` names what is measured; results of another subject are not mixed in.
    """

    directory: Path
    subject: str

    def open(self, *, fresh: bool) -> None:
        """Prepare the directory; with `fresh`, empty it. BenchError when it has results of another version."""
        self.directory.mkdir(parents=True, exist_ok=True)
        note = self.directory / "subject"
        if fresh:
            for path in self.directory.glob("*.json"):
                path.unlink()
        elif any(self.directory.glob("*.json")) and (not note.exists() or note.read_text() != self.subject):
            raise BenchError(f"{self.directory} has results of another bake or other jobs: --fresh throws them away")
        note.write_text(self.subject)

    def has(self, case: str, side: Side, number: int) -> bool:
        return self._path(case, side, number).exists()

    def save(self, measurement: Measurement) -> None:
        self.write(self._path(measurement.case, measurement.side, measurement.number).name, asdict(measurement))

    def write(self, name: str, document: Mapping[str, Any]) -> None:
        """Write the file atomically."""
        partial = self.directory / f".{name}.part"
        partial.write_text(json.dumps(document, indent=1) + "\n")
        partial.rename(self.directory / name)

    def all(self) -> list[Measurement]:
        paths = sorted(path for path in self.directory.glob("*.json") if path.name.count(".") > 1)
        return [Measurement(**json.loads(path.read_text())) for path in paths]

    def document(self, name: str) -> dict[str, Any]:
        path = self.directory / name
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def _path(self, case: str, side: Side, number: int) -> Path:
        return self.directory / f"{case.replace('/', '-')}.{side}.{number}.json"


# -- processes -----------------------------------------------------------------------------------------------------------


def adopt_orphans() -> None:
    """Make this process the parent of processes that its children detach."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise BenchError(f"prctl: {os.strerror(ctypes.get_errno())}")


def run(argv: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path, log: Path, timeout: float = COMMAND_SECONDS) -> Run:
    """Run `argv` to its end. Its output goes to `log` and, with times, into the result. This process must have no other children."""
    words = tuple(map(str, argv))
    lines: list[Line] = []
    busy, started, clock = _busy(), time.time(), time.perf_counter()
    with _started(words, env, cwd) as process:
        reader = threading.Thread(target=_read, args=(process, lines, log), daemon=True)
        reader.start()
        account = _Account()
        watch = threading.Timer(timeout, _end, (process.pid,))
        watch.daemon = True
        watch.start()
        try:
            while account.codes.get(process.pid) is None:
                account.reap(block=True)
        finally:
            watch.cancel()
        wall = time.perf_counter() - clock
        process.returncode = account.codes[process.pid]
        account.settle()
        reader.join(ORPHAN_SECONDS)
    others = max(0.0, _busy() - busy - account.cpu)
    return Run(words, started, wall, account.cpu, account.peak, process.returncode, tuple(lines), others)


@contextmanager
def _started(words: Sequence[str], env: Mapping[str, str], cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in its own session. On an interrupt it is stopped, and its remaining processes are ended."""
    process = subprocess.Popen(
        words,
        env=dict(env),
        cwd=cwd,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    except BaseException:
        if process.returncode is None:
            process.returncode = _stop(process.pid)
        _Account().settle(seconds=1.0)
        raise


def _stop(pid: int) -> int:
    """Ask a command to stop, as Ctrl-C does, and give it time to clean up. Returns its exit code, -1 when it is not known."""
    account, deadline = _Account(), time.monotonic() + CLEANUP_SECONDS
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGINT)
        while pid not in account.codes and time.monotonic() < deadline:
            if not account.reap(block=False):
                time.sleep(0.1)
    return account.codes.get(pid, -1)


def _end(pid: int, number: signal.Signals = signal.SIGTERM) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _read(process: subprocess.Popen[str], lines: list[Line], log: Path) -> None:
    assert process.stdout
    with log.open("w") as file:
        for text in process.stdout:
            lines.append(Line(time.time(), text.rstrip("\n")))
            file.write(text)


class _Account:
    """Adds up the resource usage of ended children."""

    def __init__(self) -> None:
        self.codes: dict[int, int] = {}
        self.cpu = 0.0
        self.peak = 0

    def reap(self, *, block: bool) -> bool:
        """Reap one child. False if none has ended, or if there is none (ChildProcessError)."""
        pid, status, usage = os.wait4(-1, 0 if block else os.WNOHANG)
        if not pid:
            return False
        self.codes[pid] = os.waitstatus_to_exitcode(status)
        self.cpu += usage.ru_utime + usage.ru_stime
        self.peak = max(self.peak, usage.ru_maxrss * 1024)
        return True

    def settle(self, seconds: float = ORPHAN_SECONDS) -> None:
        """Wait for adopted children, and end those that keep running."""
        if self._drain(time.monotonic() + seconds):
            return
        for pid in children():
            _end(pid)
        if not self._drain(time.monotonic() + 5.0):
            for pid in children():
                _end(pid, signal.SIGKILL)
            self._drain(time.monotonic() + 5.0)

    def _drain(self, deadline: float) -> bool:
        while time.monotonic() < deadline:
            try:
                if not self.reap(block=False):
                    time.sleep(0.02)
            except ChildProcessError:
                return True
        return False


def _busy() -> float:
    """Busy seconds of all processors since the boot, with "steal", which this host did not get: /proc/stat, see proc(5)."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def children() -> list[int]:
    """The processes that have this one for a parent."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


# -- files and progress --------------------------------------------------------------------------------------------------


def allocated(*paths: Path) -> int:
    """The bytes that files take on the disk, including those in directories. A file with several names counts once."""
    found: dict[tuple[int, int], int] = {}
    for path in paths:
        for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
            about = file.lstat()
            found[about.st_dev, about.st_ino] = about.st_blocks * 512
    return sum(found.values())


@dataclass(frozen=True)
class Progress:
    """Progress lines with the time since the start."""

    began: float = field(default_factory=time.monotonic)
    write: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def say(self, text: str) -> None:
        self.write(f"[{int(self.seconds) // 60:3}:{int(self.seconds) % 60:02}] {text}")
