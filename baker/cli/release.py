"""Bring a channel's image to where it runs, as a new numbered release: an auto-scaling group (asg/NAME), a launch template (lt/NAME), an
SSM parameter (ssm//PATH), or a plugin's kind. When it fails the target is rolled back. --resume goes on with one whose process ended."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from baker.cli.app import App
from baker.cli.display import display
from baker.cli.options import add_json
from baker.cli.releasing import access, add_access, add_strategy, releaser, show_end, strategy
from baker.core.errors import UsageError

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog

EXAMPLES = """
  bake release web prod --to asg/web-prod --min-healthy 90 --max-healthy 110
  bake release web prod --to asg/web-prod --checkpoints 25,50,100 --checkpoint-delay 5m --alarm web-5xx
  bake release web prod --to lt/web --set-default
  bake release web prod --to ssm//bake/web/prod
  bake release web --resume
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the images")
    parser.add_argument("channel", nargs="?", metavar="CHANNEL", help="whose image is released")
    parser.add_argument("--to", metavar="TARGET", help="asg/GROUP, lt/LAUNCH-TEMPLATE or ssm//PATH (default: as the last release of it)")
    parser.add_argument("--resume", action="store_true", help="go on with releases of NAME whose process ended before they did")
    add_strategy(parser)
    add_access(parser)
    add_json(parser, "the release as JSON, at its end")


def run(args: argparse.Namespace, app: App) -> int:
    with display(app, on_error_stream=True) as shown:
        baker = app.baker(shown)
        catalog = baker.catalog
        work = releaser(baker, shown)
        if args.resume:
            if args.channel or args.to:
                raise UsageError("--resume goes on with what was begun", hint=f"bake release {args.name} --resume")
            ended = work.resume(args.name, access(args))
        elif not args.channel:
            raise UsageError("which channel's image is to be released?", hint=f"bake release {args.name} CHANNEL --to TARGET")
        else:
            to = args.to or _last_target(args, catalog)
            ended = [work.release(args.name, args.channel, to, strategy(args), access(args), why=args.why, wait=not args.no_wait)]
    for release in ended:
        show_end(app, args, catalog, release)
    return 0


def _last_target(args: argparse.Namespace, catalog: Catalog) -> str:
    found = [one.target for one in catalog.releases.all(args.name) if one.channel == args.channel]
    if not found:
        raise UsageError("where is it to be released?", hint=f"bake release {args.name} {args.channel} --to asg/GROUP")
    return found[0]
