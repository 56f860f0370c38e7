"""List channels: the image of each, who set it, and who protects it."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from baker.cli.app import App
from baker.cli.options import add_json
from baker.cli.releasing import moment, show_table
from baker.core.host_facts import now

EXAMPLES = """
  bake channels
  bake channels web
  bake channels web --json | jq -r '.[] | .channel + " " + .version'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="list only channels of this image name")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    catalog = app.baker().catalog
    channels = catalog.channels.all(args.name)
    images, revoked = {one.image: catalog.image(one.image) for one in channels}, catalog.revocations.in_force(now())
    if args.json:
        app.json([{**asdict(one), "version": images[one.image].version, "revoked": one.image in revoked} for one in channels])
        return 0
    if not channels:
        app.note("no channels" + (f" of {args.name}" if args.name else "") + ": `bake channel NAME CHANNEL --set IMAGE` creates one")
        return 0
    rows = [
        [
            one.name,
            one.channel,
            images[one.image].version + (" (revoked)" if one.image in revoked else ""),
            one.image,
            moment(app, one.changed),
            one.who,
            one.protected_by or "-",
        ]
        for one in channels
    ]
    show_table(app, ["NAME", "CHANNEL", "VERSION", "ID", "CHANGED", "BY", "PROTECTED BY"], rows)
    return 0
