"""List inputs of images that have newer versions: parent images, packages, AMIs, roles and collections, files. Reads the package indexes
that the builds read; changes nothing. Without names, checks the newest version of each image."""

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
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="name, name@version or id (default: the newest image of each name)")
    parser.add_argument("--exit-code", action="store_true", help="end with 1 if something is newer")
    add_json(parser, "print a JSON array with an object for each image")


def run(args: argparse.Namespace, app: App) -> int:
    examined = app.baker().outdated(args.images)
    if args.json:
        app.json([_json(each) for each in examined])
    else:
        _print(examined, app)
    return 1 if args.exit_code and any(each.newer for each in examined) else 0


def _print(examined: list[Examined], app: App) -> None:
    rows = [(_title(each), row.what, row.name, short(row.before), _now(row)) for each in examined for row in each.newer]
    if app.quiet:
        app.lines([_title(each) for each in examined if each.newer])
        return
    app.lines(app.table(("IMAGE", "WHAT", "NAME", "ON RECORD", "NOW"), rows) if rows else [])
    for each in examined:
        title = _title(each)
        for unknown in each.unknown:
            app.err.line(f"{title}: not checked: {unknown}")
        if not each.newer:
            app.note(f"{title}: nothing is newer" + (" among the inputs that could be checked" if each.unknown else ""))
    if not examined:
        app.note("no images yet: `bake build TEMPLATE` builds one")


def _title(each: Examined) -> str:
    return f"{each.image.name}@{each.image.version}"


def _now(row: Newer) -> str:
    return ", ".join(filter(None, ("removed" if not row.after else short(row.after), row.note)))


def _json(each: Examined) -> dict[str, object]:
    image = each.image
    return {
        "id": image.id,
        "name": image.name,
        "version": image.version,
        "newer": [asdict(row) for row in each.newer],
        "unknown": list(each.unknown),
    }
