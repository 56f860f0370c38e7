"""Splits the time of a build into parts, by the guest's own clock.

The scripts of the jobs print marks with the guest's uptime, the kernel's last line on the console has the uptime of power-off, and the
host notes when each line arrived: that ties both clocks together (an emulated guest's runs as fast as the host's, but stands still while
the machine is being kept). So the wall time of a run falls into what the guest did

    boot       from "the virtual CPUs run" until systemd says that ssh.service is up (nothing, where a kept machine is restored)
    steps      the sum of begin-to-end of each step, in the guest
    shutdown   from the order to power off until the kernel's "Power down"

and the tool's own overhead, everything else: starting, finding out that SSH answers and connecting, what passes between two steps, what
is done to the guest after the last step (bake: seal; a file that is copied has no marks, so it counts here, for both tools), and after
power-off (capture, compaction, digest, manifest, record).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

MARK = re.compile(r"bench-mark (\S+) (begin|end|active) ([0-9.]+)")
POWER_DOWN = re.compile(r"\[ *([0-9]+\.[0-9]+)\] reboot: Power down")
PAUSED = re.compile(r"the machine was paused for ([0-9.]+) s")  # bake, of a machine that it keeps
MICROSECONDS = 1e6


@dataclass(frozen=True)
class Line:
    """A line of a tool's output, and its time (seconds since the epoch)."""

    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A mark and the time of its arrival."""

    at: float
    what: str  # begin, end: the value is the uptime; active: it is when ssh.service was up, in microseconds of uptime
    value: float

    @property
    def offset(self) -> float:
        """The host's clock at the guest's uptime 0."""
        return self.at - self.value


@dataclass(frozen=True)
class Anchors:
    """Points in time on the host's clock."""

    start: float  # the process was started
    running: float  # the machine's virtual CPUs run
    halting: float  # the guest was told to power off
    end: float  # the process had ended


@dataclass(frozen=True)
class Split:
    """The wall time of a run in seconds; `overhead` is the sum of the last five."""

    boot: float
    steps: float
    shutdown: float
    starting: float
    connecting: float
    between: float
    sealing: float
    finishing: float

    @property
    def overhead(self) -> float:
        return self.starting + self.connecting + self.between + self.sealing + self.finishing


def split(anchors: Anchors, lines: Sequence[Line], console: str) -> Split | None:
    """None when a mark is missing, because unknown parts are not estimated."""
    marks = [Mark(line.at, found[2], float(found[3])) for line in lines if (found := MARK.search(line.text))]
    steps = [mark for mark in marks if mark.what != "active"]
    begins, ends = ([mark.value for mark in steps if mark.what == what] for what in ("begin", "end"))
    down = POWER_DOWN.findall(console)
    if not begins or len(begins) != len(ends) or not down:
        return None
    first = min(mark.offset for mark in steps)  # before any pause of the guest; a line may arrive late, but never early
    last = min(mark.offset for mark in steps[-2:])
    active = [mark.value / MICROSECONDS + first for mark in marks if mark.what == "active"]
    begun, done = begins[0] + first, ends[-1] + last
    ready = max([anchors.running, *active])
    worked = sum(end - begin for begin, end in zip(begins, ends, strict=True))
    off = float(down[-1]) + last + _still(lines, steps[-1].at)
    return Split(
        boot=ready - anchors.running,
        steps=worked,
        shutdown=off - anchors.halting,
        starting=anchors.running - anchors.start,
        connecting=begun - ready,
        between=done - begun - worked,
        sealing=anchors.halting - done,
        finishing=anchors.end - off,
    )


def _still(lines: Sequence[Line], since: float) -> float:
    """Seconds for which the guest was paused after the last mark."""
    return sum(float(found[1]) for line in lines if line.at > since and (found := PAUSED.search(line.text)))


def parts(split: Split) -> dict[str, float]:
    """A split as figures of a measurement."""
    names = ("boot", "steps", "shutdown", "starting", "connecting", "between", "sealing", "finishing", "overhead")
    return {f"guest {name}": round(getattr(split, name), 3) for name in names}
