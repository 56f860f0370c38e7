"""A program that runs nothing: `python record_argv.py FILE CODE ARGUMENT...` writes its arguments into FILE, as JSON, and exits with CODE.

It stands where a command would reach a machine, so that what is meant for a guest is never run on this host.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def recorder(file: Path, exit_code: int = 0) -> tuple[str, ...]:
    """The beginning of a command line that records the rest of it in `file`."""
    return (sys.executable, __file__, str(file), str(exit_code))


def recorded(file: Path) -> list[str]:
    """The arguments that a command line of `recorder` was run with."""
    found: list[str] = json.loads(file.read_text())
    return found


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(sys.argv[3:]))
    sys.exit(int(sys.argv[2]))
