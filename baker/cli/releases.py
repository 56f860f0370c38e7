"""List releases, last first: which image went where, how it ended, who began it and why."""

from __future__ import annotations

import argparse

from baker.catalog.records import Release
from baker.cli.app import App
from baker.cli.options import add_json, positive
from baker.cli.releasing import moment, releaser, show_table, to_json, version_of

EXAMPLES = """
  bake releases web
  bake releases web --json | jq '.[0].details'
  bake releases --limit 50
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="only those of this image name")
    parser.add_argument("-n", "--limit", type=positive, default=20, metavar="N", help="how many (default: 20)")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    baker = app.baker()
    catalog = baker.catalog
    work, found = releaser(baker), catalog.releases.all(args.name)[: args.limit]
    left = {(one.name, one.number) for one in found if work.abandoned(one)}
    if args.json:
        app.json([{**to_json(catalog, one), "nobody_waits": (one.name, one.number) in left} for one in found])
        return 0
    if app.quiet:
        app.lines([one.title if args.name else f"{one.name} {one.title}" for one in found])
        return 0
    if not found:
        app.note("nothing has been released" + (f" of {args.name}" if args.name else "") + " yet: `bake release NAME CHANNEL --to TARGET`")
        return 0
    rows = [
        [
            *([] if args.name else [one.name]),
            one.title,
            one.status,
            version_of(catalog, one.image),
            one.target,
            moment(app, one.started),
            one.who,
            _why(one),
        ]
        for one in found
    ]
    show_table(app, [*([] if args.name else ["NAME"]), "RELEASE", "STATUS", "VERSION", "TARGET", "WHEN", "WHO", "WHY"], rows)
    for one in (one for one in found if (one.name, one.number) in left):
        app.note(f"nobody on this host waits for {one.title} of {one.name}: bake release {one.name} --resume")
    return 0


def _why(release: Release) -> str:
    back = f"rollback to v{release.rollback_of}" if release.rollback_of is not None else ""
    return "; ".join(filter(None, [back, release.why, release.error])) or "-"
