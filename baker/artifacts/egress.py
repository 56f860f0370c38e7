"""Endpoints that build machines reached without bake's proxy, for `network: report`: the evidence `egress`, JSON.

{"reached": [{"protocol": "tcp", "address": "192.0.2.7", "port": 443, "name": "example.org"}]}
"""

from __future__ import annotations

import json
from pathlib import Path

from baker.core.model import EgressEndpoint

NAME = "egress.json"  # in a layer's directory, and in a build's scratch directory
EARLIER = "egress-before.json"  # in a build's scratch directory: the endpoints of the layer that it starts from
SHOWN = 5  # endpoints that a warning names


def read(path: Path) -> tuple[EgressEndpoint, ...]:
    """The endpoints in a file of this format; empty when there is no such file."""
    try:
        return tuple(EgressEndpoint(**each) for each in json.loads(path.read_text())["reached"])
    except FileNotFoundError:
        return ()


def summary(endpoints: tuple[EgressEndpoint, ...]) -> str:
    """The first endpoints and the number of the others, on one line."""
    more = f" and {len(endpoints) - SHOWN} more" if len(endpoints) > SHOWN else ""
    return f"{', '.join(each.title for each in endpoints[:SHOWN])}{more}"
