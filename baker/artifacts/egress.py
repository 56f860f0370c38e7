"""Endpoints that build machines reached without bake's proxy, for `network: report`: the evidence `egress`, JSON.

{"reached": [{"protocol": "tcp", "address": "192.0.2.7", "port": 443, "name": "example.org"}]}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from baker.core.model import EgressEndpoint

EVIDENCE = "egress"
SHOWN = 5  # endpoints that a warning names


def pack(found: Iterable[EgressEndpoint]) -> bytes:
    """The endpoints as JSON."""
    return json.dumps({"reached": [vars(each) for each in found]}, sort_keys=True).encode()


def write(path: Path, found: Iterable[EgressEndpoint]) -> None:
    """Write the endpoints to a file."""
    path.write_bytes(pack(found))


def read(path: Path) -> tuple[EgressEndpoint, ...]:
    """What `write` wrote."""
    return tuple(EgressEndpoint(**each) for each in json.loads(path.read_text())["reached"])


def summary(found: Sequence[EgressEndpoint]) -> str:
    """One line for people."""
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"{', '.join(each.title for each in found[:SHOWN])}{more}"
