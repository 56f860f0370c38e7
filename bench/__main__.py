"""The side-by-side benchmark against Packer: `make bench`, or

    python -m bench [--runs N] [--only CASE]... [--minutes M] [--work DIR] [--fresh] [--report]

The two tools alternate: a round has every measurement once, and there are N rounds. Each result is stored as a file at once (.bench/), so
an interrupted benchmark can continue. The report is written from the results at the end, or alone with --report. Everything else,
including BAKE_HOME, is in a temporary directory, which is removed at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from bench import report
from bench.bake import ROOT, Bake
from bench.cases import Cases, Task, plan, prepare
from bench.harness import BenchError, Progress, Results, adopt_orphans
from bench.host import describe
from bench.machine import Identity
from bench.packer import Packer
from bench.proxy import package_cache

SPACE_NEEDED = 30 << 30  # images and kept machines of three rounds, with room to spare


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGTERM, _interrupt)
    progress, results = Progress(), Results(args.results, subject())
    try:
        if not args.report:
            results.open(fresh=args.fresh)
            measure(args, results, progress)
    except BenchError as error:
        progress.say(f"stopped: {error}")
        return 1
    except KeyboardInterrupt:
        progress.say("interrupted: the same command goes on from here")
        return 130
    if not results.all():
        progress.say("there are no results to report")
        return 1
    written = report.write(results, args.docs)
    progress.say(f"wrote {' and '.join(str(path) for path in written)}")
    return 0


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="how often each is measured (default: 3)")
    parser.add_argument(
        "--only", action="append", default=[], metavar="CASE", help="only cases that begin so: web, app, app/last, four, ..."
    )
    parser.add_argument("--minutes", type=float, default=120.0, metavar="M", help="begin nothing new after that (default: 120)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="make the temporary directory in DIR (default: /var/tmp)")
    parser.add_argument("--home", type=Path, metavar="DIR", help="begin with a copy of this BAKE_HOME, so that its base image is used")
    parser.add_argument("--results", type=Path, default=ROOT / ".bench", metavar="DIR", help="where results are kept (default: .bench)")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", metavar="DIR", help="where the report is written (default: docs)")
    parser.add_argument("--fresh", action="store_true", help="throw away the results of earlier runs")
    parser.add_argument("--direct", action="store_true", help="guests fetch packages from the archive, not through a cache on this host")
    parser.add_argument("--report", action="store_true", help="measure nothing, write the report from the results there are")
    return parser.parse_args(argv)


def measure(args: argparse.Namespace, results: Results, progress: Progress) -> None:
    """Make all missing measurements, round by round, until the time is used up."""
    wanted = [task for task in plan(args.runs) if fits(task, args.only)]
    missing = [task for task in wanted if not results.has(task.case, task.side, task.number)]
    progress.say(f"{len(wanted) - len(missing)} of {len(wanted)} measurements are there already")
    if not missing:
        return
    if not shutil.which("packer"):
        raise BenchError("packer is not installed: .ci/packages bench")
    adopt_orphans()
    results.write("machine.json", describe())
    with (
        working(args.work, progress) as directory,
        packages(directory, direct=args.direct) as proxy,
        tools(directory, args.home) as (bake, packer),
    ):
        cases = Cases(bake, packer, directory / "jobs", proxy)
        progress.say("preparing: the base image, the package cache")
        prepare(cases)
        for task in missing:
            if progress.seconds > args.minutes * 60:
                progress.say("the time is used up: the same command goes on from here")
                return
            measurement = task.measure(cases)
            results.save(measurement)
            progress.say(f"{task.title:<44}{measurement.wall:8.1f} s")


def fits(task: Task, only: Sequence[str]) -> bool:
    return not only or any(task.case.startswith(beginning) for beginning in only)


@contextmanager
def tools(directory: Path, home: Path | None) -> Iterator[tuple[Bake, Packer]]:
    """Set up both tools below `directory`. At the end, nothing of bake is left outside of it."""
    logs = directory / "logs"
    for path in (logs, directory / "packer"):
        path.mkdir()
    if home:
        shutil.copytree(home, directory / "home")
    bake = Bake(directory / "home", logs)
    try:
        yield bake, Packer(directory / "packer", directory / "base.qcow2", Identity(directory / "identity").make(), logs)
    finally:
        bake.end()


@contextmanager
def packages(directory: Path, *, direct: bool) -> Iterator[str]:
    """The address of the proxy through which guests download packages; '' for none."""
    if direct:
        yield ""
        return
    with package_cache(directory / "packages") as address:
        yield address


@contextmanager
def working(parent: Path | None, progress: Progress) -> Iterator[Path]:
    """A temporary directory, in `parent` if given; removed at the end."""
    parent = parent or Path("/var/tmp")
    parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(parent).free < SPACE_NEEDED:
        progress.say(f"{parent} has less than {SPACE_NEEDED >> 30} GiB free: this may not be enough (--work names another place)")
    directory = Path(tempfile.mkdtemp(prefix="bake-bench-", dir=parent.absolute()))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def subject() -> str:
    """A digest of everything measured: bake itself, the jobs, and the command lines of both tools."""
    files = sorted([*(ROOT / "baker").rglob("*"), *(ROOT / "bench/jobs").rglob("*"), *(ROOT / "bench").glob("*.py")])
    total = hashlib.sha256()
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts and file.name not in ("report.py", "chart.py", "startup.py"):
            total.update(f"{file.relative_to(ROOT)}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
