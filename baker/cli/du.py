"""Show the disk usage of images, sources, layers, downloads and evidence, and what needs each. Each byte is counted once."""

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
    items = app.baker().usage()
    if args.json:
        app.json([asdict(item) for item in items])
        return 0
    if not items:
        app.note("nothing is stored yet")
        return 0
    now = app.now()
    rows = [[item.kind, item.name, size(item.size), ", ".join(item.by) or "-", ago(item.last, now) if item.last else "-"] for item in items]
    app.lines(app.table(["KIND", "NAME", "SIZE", "NEEDED BY", "LAST USED"], rows, right={2}))
    app.note(f"{size(sum(item.size for item in items))} in total; `bake gc` removes layers and downloads")
    return 0
