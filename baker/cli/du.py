"""What takes how much disk, and what needs it: images, sources, layers, downloads, evidence. Each byte is counted once."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from baker.cli.app import App
from baker.cli.options import add_json
from baker.render.text import ago, size

EXAMPLES = """
  bake du
  bake du --json | jq 'map(.size) | add'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    found = app.baker().usage()
    if args.json:
        app.json([asdict(item) for item in found])
        return 0
    if not found:
        app.note("nothing is there yet")
        return 0
    now = app.now()
    rows = [[item.kind, item.name, size(item.size), ", ".join(item.by) or "-", ago(item.last, now) if item.last else "-"] for item in found]
    app.lines(app.table(["KIND", "NAME", "SIZE", "NEEDED BY", "LAST USED"], rows, right={2}))
    app.note(f"{size(sum(item.size for item in found))} in all; layers and downloads may go: bake gc")
    return 0
