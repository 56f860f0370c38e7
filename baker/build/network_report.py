"""Network report."""

from __future__ import annotations

import json
from pathlib import Path

from baker.artifacts.egress import EARLIER, read
from baker.core.model import EgressEndpoint
from baker.machines.base import Machine


def note(machine: Machine, scratch: Path, destination: Path) -> tuple[EgressEndpoint, ...]:
    """Write what the machine, and those whose layers it goes on from, reached so far."""
    found = tuple(dict.fromkeys((*read(scratch / EARLIER), *machine.reached())))
    destination.write_text(json.dumps({"reached": [vars(each) for each in found]}, sort_keys=True))
    return found
