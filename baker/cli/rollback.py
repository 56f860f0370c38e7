"""Release the image of an earlier release again, as a new release: the last successful one before the current release, or the one that is
named. Strategy and AWS access default to those of the current release."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from baker.cli.app import App
from baker.cli.display import display
from baker.cli.options import add_json
from baker.cli.releasing import access, add_access, add_strategy, releaser, show_end, strategy
from baker.core.errors import UsageError

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog

EXAMPLES = """
  bake rollback web
  bake rollback web v40 --why 'errors in checkout'
  bake rollback web --to asg/web-prod
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the image name")
    parser.add_argument("release", nargs="?", metavar="RELEASE", help="such as v40 (default: the last successful one before the current)")
    parser.add_argument("--to", default="", metavar="TARGET", help="the target, if NAME was released to several")
    add_strategy(parser)
    add_access(parser)
    add_json(parser, "print the new release as JSON at its end")


def run(args: argparse.Namespace, app: App) -> int:
    number = _number(args.release)
    with display(app, on_error_stream=True) as shown:
        baker = app.baker(shown)
        catalog = baker.catalog
        ended = releaser(baker, shown).rollback(
            args.name,
            number,
            to=args.to,
            strategy=strategy(args),
            access=access(args),
            why=args.why,
            wait=not args.no_wait,
        )
    show_end(app, args, catalog, ended)
    if not args.json and ended.rollback_of is not None:
        for channel in catalog.channels.all(args.name):
            if channel.image != ended.image and channel.channel == _channel(args, catalog, ended.target):
                image = catalog.image(ended.image)
                app.note(
                    f"{args.name}@{channel.channel} still points to the other image, which the next release would use again: "
                    f"bake channel {args.name} {channel.channel} --set {image.name}@{image.version}"
                )
    return 0


def _channel(args: argparse.Namespace, catalog: Catalog, target: str) -> str:
    """The channel of the last release to the target."""
    channels = [one.channel for one in catalog.releases.all(args.name) if one.target == target and one.channel]
    return channels[0] if channels else ""


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"v?[1-9][0-9]{0,8}", text):
        raise UsageError(
            f"{text!r} is not a release number", hint="use one like v40; `bake releases NAME` lists them", code="usage.bad-release"
        )
    return int(text.removeprefix("v"))
