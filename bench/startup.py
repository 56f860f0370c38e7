"""Measures the time of bake's short commands, as multiples of `python -c pass`.

    .venv/bin/python -m bench.startup [--runs N] [--work DIR]

The home is made here, without a machine: it has an image that a template starts from, and the image that this template makes, as a
build registers them, so that `bake build` finds that nothing has changed. All commands take turns, and each run of a command is
compared with the `python -c pass` just before it: whatever else this machine does slows both. What is printed are medians.
The exit code is 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from baker.api import Baker
from baker.catalog.records import BuildRecord, ImageRecord, StepRecord
from baker.core.digests import digest_of
from baker.core.home import Home
from baker.plan.plan import verify_key

ROOT = Path(__file__).resolve().parent.parent
RUNS = 15
AT = "2026-11-22T20:00:00Z"
TEMPLATE = ROOT / "templates" / "web.yaml"
BAKE = (sys.executable, "-m", "baker")
PASS = (sys.executable, "-c", "pass")


@dataclass
class Case:
    """A command, its goals (`most` times `python -c pass`, `seconds`; 0 for none), and its measured time."""

    name: str
    arguments: Sequence[str]
    home: Path
    most: float = 0.0
    seconds: float = 0.0
    times: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    @property
    def is_met(self) -> bool:
        return not (self.most and self.ratio > self.most) and not (self.seconds and self.time > self.seconds)

    @property
    def time(self) -> float:
        return statistics.median(self.times)

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    def __str__(self) -> str:
        goals = [f"goal: {self.most:g} x"] if self.most else []
        goals += [f"goal: {self.seconds:g} s"] if self.seconds else []
        shown = ("   " + ", ".join(goals) + ("" if self.is_met else "  MISSED")) if goals else ""
        return f"bake {self.name:<28}{self.time:7.3f} s  {self.ratio:5.1f} x{shown}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help=f"how often each command is run (default: {RUNS})")
    parser.add_argument("--work", type=Path, metavar="DIR", help="make the homes in DIR and leave them there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bake-bench-startup-") as temporary:
        work = args.work or Path(temporary)
        fresh, full = work / "empty", work / "full"
        fresh.mkdir(parents=True, exist_ok=True)
        if not full.exists():
            prepare(full)
        cases = [
            Case("--help", ["--help"], fresh, most=2),
            Case("images (an empty home)", ["images"], fresh, most=6),
            Case("images", ["images"], full),
            Case("show web", ["show", "web"], full),
            Case("validate", ["validate", str(TEMPLATE)], full, seconds=0.5),
            Case("build (unchanged)", ["build", str(TEMPLATE)], full, seconds=0.5),
        ]
        base = measure(cases, args.runs)
    print(f"python -c pass                   {base:7.3f} s")
    for case in cases:
        print(case)
    return int(not all(case.is_met for case in cases))


def measure(cases: Sequence[Case], runs: int) -> float:
    """Run all commands alternately; returns the median seconds of `python -c pass`. The first run of each, which writes compiled modules,
    does not count."""
    base = []
    for number in range(runs + 1):
        for case in cases:
            least = timed(PASS, os.environ)
            seconds = timed([*BAKE, *case.arguments], environment(case.home))
            if number:
                base.append(least)
                case.times.append(seconds)
                case.ratios.append(seconds / least)
    return statistics.median(base)


def timed(command: Sequence[str], env: Mapping[str, str]) -> float:
    began = time.perf_counter()
    ended = subprocess.run(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT, check=False)
    seconds = time.perf_counter() - began
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)}: {ended.stderr.decode()}")
    return seconds


def environment(home: Path) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("BAKE_")} | {"BAKE_HOME": str(home)}


def prepare(directory: Path) -> None:
    """A home with the image that the template starts from, and the image that it makes."""
    with Baker(Home.from_environment({"BAKE_HOME": str(directory)}), env={}) as baker:
        disks = [baker.store.add_bytes(f"a disk of {name}".encode()) for name in ("debian-13", "web")]
        base = an_image("1" * 12, "debian-13", "13.1.0", disks[:1], "0" * 64, None)
        baker.catalog.register(a_build(base, (), "0" * 64), base)
        [template] = baker.load(TEMPLATE)
        plan = baker.plan(template)
        assert plan is not None, f"{template.path} starts from another image than {base.name}"
        image = an_image("2" * 12, template.name, template.version, [disks[1], disks[0]], plan.fingerprint, base.id)
        steps = tuple(StepRecord(each.index, each.name, "shell", each.key, "", status="done") for each in plan.steps)
        baker.catalog.register(a_build(image, steps, verify_key(template)), image)


def an_image(identifier: str, name: str, version: str, chain: Sequence[str], fingerprint: str, parent: str | None) -> ImageRecord:
    return ImageRecord(
        id=identifier,
        name=name,
        version=version,
        digest=chain[0],
        fingerprint=fingerprint,
        parent=parent,
        created=AT,
        size=1 << 20,
        virtual_size=1 << 32,
        chain=tuple(chain),
        verified=True,
        build="b" + identifier[1:],
    )


def a_build(image: ImageRecord, steps: tuple[StepRecord, ...], tests: str) -> BuildRecord:
    return BuildRecord(
        id=image.build,
        status="built",
        started=AT,
        finished=AT,
        template_name=image.name,
        template_version=image.version,
        template_path=f"/t/{image.name}.yaml",
        template_text="",
        template_digest="sha256:" + digest_of(""),
        git_commit="",
        git_dirty=False,
        variables={},
        source={},
        steps=steps,
        shape={},
        machine={},
        host={},
        tools={},
        who="somebody",
        ci={},
        timings={},
        verify="passed",
        verify_key=tests,
        fingerprint=image.fingerprint,
    )


if __name__ == "__main__":
    sys.exit(main())
