"""What build machines reached past bake's proxy, for `network: report`: the evidence `egress`, JSON.

{"reached": [{"protocol": "tcp", "address": "192.0.2.7", "port": 443, "name": "example.org"}]}
"""

from __future__ import annotations

import json
from pathlib import Path

from baker.core.model import EgressEndpoint

NAME = "egress.json"  # in a layer's directory, and in a build's scratch directory
EARLIER = "egress-before.json"  # what the layer that a build goes on from brings
SHOWN = 5  # places that a warning names


def read(path: Path) -> tuple[EgressEndpoint, ...]:
    """What `note` wrote; nothing where there is no such file."""
    try:
        return tuple(EgressEndpoint(**each) for each in json.loads(path.read_text())["reached"])
    except FileNotFoundError:
        return ()


def told(found: tuple[EgressEndpoint, ...]) -> str:
    """One line for people."""
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"{', '.join(each.title for each in found[:SHOWN])}{more}"
