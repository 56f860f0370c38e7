"""Say which images have newer inputs or a newer base: the image that they were made on, packages, AMIs, roles and collections, files.
Asks the package indexes that the builds read; changes nothing. Without names, the newest version of each image is looked at."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from baker.cli.app import App
from baker.cli.lock import short
from baker.cli.options import add_json

if TYPE_CHECKING:
    from baker.lockfile.outdated import Examined, Newer

EXAMPLES = """
  bake outdated
  bake outdated web debian-13@^13.1
  bake outdated --json | jq -r '.[] | select(.newer != []) | .name'
  bake outdated web --exit-code || bake lock --update web.yaml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="an image: name, name@version, id (default: the newest of each name)")
    parser.add_argument("--exit-code", action="store_true", help="end with 1 when something is newer")
    add_json(parser, "an array with an object for each image")


def run(args: argparse.Namespace, app: App) -> int:
    found = app.baker().outdated(args.images)
    if args.json:
        app.json([_json(each) for each in found])
    else:
        _tell(found, app)
    return 1 if args.exit_code and any(each.newer for each in found) else 0


def _tell(found: list[Examined], app: App) -> None:
    rows = [(_title(each), row.what, row.name, short(row.before), _now(row)) for each in found for row in each.newer]
    if app.quiet:
        app.lines([_title(each) for each in found if each.newer])
        return
    app.lines(app.table(("IMAGE", "WHAT", "NAME", "ON RECORD", "NOW"), rows) if rows else [])
    for each in found:
        title = _title(each)
        for unknown in each.unknown:
            app.err.line(f"{title}: not looked at: {unknown}")
        if not each.newer:
            app.note(f"{title}: nothing is newer" + (" of what could be looked at" if each.unknown else ""))
    if not found:
        app.note("no images yet: `bake build TEMPLATE` makes one")


def _title(each: Examined) -> str:
    return f"{each.image.name}@{each.image.version}"


def _now(row: Newer) -> str:
    return ", ".join(filter(None, ("gone" if not row.after else short(row.after), row.note)))


def _json(each: Examined) -> dict[str, object]:
    image = each.image
    return {
        "id": image.id,
        "name": image.name,
        "version": image.version,
        "newer": [asdict(row) for row in each.newer],
        "unknown": list(each.unknown),
    }
