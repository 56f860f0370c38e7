"""Remove images. The records of their builds are kept. An image with descendants is removed only together with them, or with --force."""

from __future__ import annotations

import argparse

from baker.cli.app import App
from baker.cli.options import add_json
from baker.render.text import size

EXAMPLES = """
  bake rm web@1.3.0
  bake rm $(bake images --quiet --unverified)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="name, name@version, name@^1.2, name@channel, id or digest")
    parser.add_argument("-f", "--force", action="store_true", help="also remove images with descendants (the descendants keep working)")
    add_json(parser, "print what was removed as JSON")


def run(args: argparse.Namespace, app: App) -> int:
    removed = app.baker().remove(args.images, force=args.force)
    if args.json:
        app.json([{"id": image.id, "name": image.name, "version": image.version, "size": image.size} for image in removed])
        return 0
    for image in removed:
        app.line(image.id if app.quiet else f"removed {image.name} {image.version} ({image.id}, {size(image.size)})")
    return 0
