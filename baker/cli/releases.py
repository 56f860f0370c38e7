"""List releases, newest first: image, target, result, who started each and why."""

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
    parser.add_argument("name", nargs="?", metavar="NAME", help="list only releases of this image name")
    parser.add_argument("-n", "--limit", type=positive, default=20, metavar="N", help="number of releases to list (default: 20)")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    baker = app.baker()
    catalog = baker.catalog
    work, releases = releaser(baker), catalog.releases.all(args.name)[: args.limit]
    abandoned = {(one.name, one.number) for one in releases if work.abandoned(one)}
    if args.json:
        app.json([{**to_json(catalog, one), "nobody_waits": (one.name, one.number) in abandoned} for one in releases])
        return 0
    if app.quiet:
        app.lines([one.title if args.name else f"{one.name} {one.title}" for one in releases])
        return 0
    if not releases:
        app.note("no releases" + (f" of {args.name}" if args.name else "") + " yet: `bake release NAME CHANNEL --to TARGET` starts one")
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
        for one in releases
    ]
    show_table(app, [*([] if args.name else ["NAME"]), "RELEASE", "STATUS", "VERSION", "TARGET", "WHEN", "WHO", "WHY"], rows)
    for one in (one for one in releases if (one.name, one.number) in abandoned):
        app.note(f"no process on this host waits for {one.title} of {one.name}: `bake release {one.name} --resume` continues it")
    return 0


def _why(release: Release) -> str:
    origin = f"rollback to v{release.rollback_of}" if release.rollback_of is not None else ""
    return "; ".join(filter(None, [origin, release.why, release.error])) or "-"
