"""Runs `bake` as a user does: as a process, with its own home."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
BUILD_SECONDS = 1200.0


@dataclass(frozen=True)
class Result:
    """The output and exit code of a finished `bake`."""

    code: int
    out: str
    err: str
    peak_kib: int  # largest resident size of the process itself

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    def ok(self) -> Result:
        assert self.code == 0, f"exit code {self.code}\n{self.out[-4000:]}\n{self.err[-4000:]}"
        return self


@dataclass
class Bake:
    """`bake` with one home."""

    home: Path
    env: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("BAKE_", "XDG_"))}
        return {**clean, "BAKE_HOME": str(self.home), "PYTHONUNBUFFERED": "1", **self.env}

    def __call__(self, *args: str | Path, timeout: float = BUILD_SECONDS, cwd: Path | None = None) -> Result:
        with self.start(*args, cwd=cwd) as process:
            watch = PeakWatch(process.pid)
            try:
                out, err = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)
                out, err = process.communicate(timeout=60)
                raise AssertionError(f"bake {' '.join(map(str, args))} took more than {timeout} s\n{out[-3000:]}\n{err[-3000:]}") from None
            return Result(process.returncode, out, err, watch.stop())

    @contextmanager
    def start(self, *args: str | Path, cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
        """Run `bake` in the background; it is killed at the end if it still runs."""
        process = subprocess.Popen(
            [sys.executable, "-m", "baker", *map(str, args)],
            env=self.environment(), cwd=cwd, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def until(self, args: Sequence[str | Path], event: Callable[[dict[str, Any]], bool], number: int) -> tuple[int, list[dict[str, Any]]]:
        """Run `bake ... --json`, send it the signal `number` at the first event for which `event` is true, and wait for its end.
        Returns the exit code and all events."""
        seen: list[dict[str, Any]] = []
        sent = False
        with self.start(*args, "--json") as process:
            assert process.stdout
            for line in process.stdout:
                seen.append(json.loads(line))
                if not sent and event(seen[-1]):
                    process.send_signal(number)
                    sent = True
            code = process.wait(120)
        assert sent, f"the event never came; the last ones: {seen[-5:]}"
        return code, seen


class PeakWatch:
    """Tracks the peak resident size of a process without its children."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, args=(Path(f"/proc/{pid}/status"),), daemon=True)
        self._thread.start()

    def _follow(self, status: Path) -> None:
        while not self._ended.wait(0.2):
            try:
                lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
            except OSError:
                return
            self.peak = max([self.peak, *(int(line.split()[1]) for line in lines)])

    def stop(self) -> int:
        self._ended.set()
        self._thread.join()
        return self.peak


def leftovers(home: Path) -> list[str]:
    """Leftovers of builds outside of catalog and store: processes, ledger entries, scratch directories, libvirt roots."""
    from baker.core.home import Home

    places = Home.from_environment({"BAKE_HOME": str(home), "HOME": str(home)})
    found = [f"ledger {path.name}" for path in places.ledger.glob("*")]
    found += [f"scratch {path.name}" for path in (places.state / "builds").glob("*")]
    found += [f"layer {path.name}" for path in places.layers.glob("*") if path.name.startswith(("at-", "gone-"))]
    found += [f"runtime {path.name}" for path in places.runtime.glob("*")] if places.runtime.is_dir() else []
    # a machine of another test may use this home's blobs as backing files, but it writes elsewhere
    marks = (str(places.state).encode(), str(places.runtime).encode())
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if int(process.name) != os.getpid() and any(mark in line for mark in marks):
            found.append(f"process {process.name}: {line.replace(bytes(1), b' ').decode(errors='replace')[:200]}")
    return found
