"""Release the image of a channel to a target, as a new numbered release: an auto-scaling group (asg/NAME), a launch template (lt/NAME), an
SSM parameter (ssm//PATH), or a target of a plugin. If the release fails, the target is rolled back. --resume continues a release whose
process ended."""

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
    parser.add_argument("name", metavar="NAME", help="the image name")
    parser.add_argument("channel", nargs="?", metavar="CHANNEL", help="the channel whose image is released")
    parser.add_argument(
        "--to", metavar="TARGET", help="asg/GROUP, lt/LAUNCH-TEMPLATE or ssm//PATH (default: that of the last release from the channel)"
    )
    parser.add_argument("--resume", action="store_true", help="continue releases of NAME whose process ended before them")
    add_strategy(parser)
    add_access(parser)
    add_json(parser, "print the release as JSON at its end")


def run(args: argparse.Namespace, app: App) -> int:
    with display(app, on_error_stream=True) as shown:
        baker = app.baker(shown)
        catalog = baker.catalog
        work = releaser(baker, shown)
        if args.resume:
            if args.channel or args.to:
                hint = f"bake release {args.name} --resume"
                raise UsageError("--resume takes no channel and no --to", hint=hint, code="usage.conflicting-options")
            ended = work.resume(args.name, access(args))
        elif not args.channel:
            hint = f"bake release {args.name} CHANNEL --to TARGET"
            raise UsageError("a release needs a channel", hint=hint, code="usage.missing-argument")
        else:
            to = args.to or _last_target(args, catalog)
            ended = [work.release(args.name, args.channel, to, strategy(args), access(args), why=args.why, wait=not args.no_wait)]
    for release in ended:
        show_end(app, args, catalog, release)
    return 0


def _last_target(args: argparse.Namespace, catalog: Catalog) -> str:
    targets = [one.target for one in catalog.releases.all(args.name) if one.channel == args.channel]
    if not targets:
        hint = f"bake release {args.name} {args.channel} --to asg/GROUP"
        raise UsageError("the first release from a channel needs a target", hint=hint, code="usage.missing-argument")
    return targets[0]
