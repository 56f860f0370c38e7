"""How long `bake --help` and `bake validate` take, as multiples of `python -c pass`.

    .venv/bin/python bench/startup.py [RUNS]

All commands take turns within one run, so that whatever else this machine does slows all of them; the medians are compared. The
first `validate` of a template, which has nothing to remember, is measured too. Always ends with exit code 0.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

RUNS = 15
TEMPLATES = sorted((Path(__file__).resolve().parent.parent / "templates").glob("*.yaml"))
BAKE = [sys.executable, "-m", "baker"]
PASS = "python -c pass"
GOALS = {"bake --help": 3.0, "bake validate": 10.0}  # times `python -c pass`


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    validate = [*BAKE, "validate", *map(str, TEMPLATES)]
    commands = {
        PASS: [sys.executable, "-c", "pass"],
        "bake --help": [*BAKE, "--help"],
        "bake validate": validate,
        "bake validate --no-cache": [*validate, "--no-cache"],
    }
    with tempfile.TemporaryDirectory() as home:
        show(measure(commands, runs, {**os.environ, "BAKE_HOME": home}))


def measure(commands: Mapping[str, Sequence[str]], runs: int, env: Mapping[str, str]) -> dict[str, float]:
    """Median seconds of each command. One run of each before that is not counted: it writes compiled modules and the first verdicts."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(runs + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=False)
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


def show(medians: Mapping[str, float]) -> None:
    for name, seconds in medians.items():
        goal = f"   goal: below {GOALS[name]:.0f}" if name in GOALS else ""
        print(f"{name:<26}{seconds * 1000:8.1f} ms  {seconds / medians[PASS]:5.1f} x{goal}")


if __name__ == "__main__":
    main()
