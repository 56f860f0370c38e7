"""Show a channel with its history, or point it to another image. The reference `web@prod` means the image that the channel `prod` of `web`
points to."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from baker.catalog.records import Channel
from baker.cli.app import App
from baker.cli.options import add_json
from baker.cli.releasing import moment, show_table, version_of
from baker.core.errors import NotFoundError, UsageError
from baker.render.text import clean

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog

EXAMPLES = """
  bake channel web prod
  bake channel web prod --set web@1.4.0 --why 'nginx CVE-2026-1'
  bake channel web prod --protect
  bake channel web canary --unset
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the image name")
    parser.add_argument("channel", metavar="CHANNEL", help="the channel, such as prod; --set creates it")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--set", metavar="IMAGE", help="point the channel to this image: web@1.4.0, web@canary or an id")
    what.add_argument("--unset", action="store_true", help="remove the channel; its history is kept")
    guard = parser.add_mutually_exclusive_group()
    guard.add_argument("--protect", action="store_true", help="refuse further changes without --force")
    guard.add_argument("--unprotect", action="store_true", help="allow changes again")
    parser.add_argument("--why", default="", metavar="TEXT", help="the reason, kept in the history")
    parser.add_argument("-f", "--force", action="store_true", help="change a protected channel")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    from baker.core.host_facts import now, who
    from baker.release.channels import assign, check_name

    if args.unset and (args.protect or args.unprotect):
        raise UsageError(
            "--unset cannot be combined with --protect or --unprotect", hint="use --unset alone", code="usage.conflicting-options"
        )
    check_name(args.channel)
    catalog = app.baker().catalog
    if args.unset:
        catalog.channels.unset(args.name, args.channel, who=who(), at=now(), why=args.why, force=args.force)
    if args.set:
        assign(catalog, args.name, args.channel, catalog.resolve(args.set), why=args.why, force=args.force)
    if args.protect or args.unprotect:
        catalog.channels.protect(args.name, args.channel, args.protect, who=who(), at=now(), why=args.why)
    channel = catalog.channels.get(args.name, args.channel)
    if channel is None and not args.unset:
        known = ", ".join(one.channel for one in catalog.channels.all(args.name))
        raise NotFoundError(
            f"{args.name} has no channel {args.channel!r}",
            hint=f"it has {known}" if known else f"`bake channel {args.name} {args.channel} --set IMAGE` creates it",
            code="channel.not-found",
        )
    _show(args, app, catalog, channel)
    return 0


def _show(args: argparse.Namespace, app: App, catalog: Catalog, channel: Channel | None) -> None:
    events = catalog.channels.events(args.name, args.channel)
    if args.json:
        app.json({"channel": asdict(channel) if channel else None, "history": [asdict(event) for event in events]})
        return
    if channel is None:
        app.line(f"{args.name}@{args.channel} does not exist any more")
        return
    if app.quiet:
        app.line(channel.image)
        return
    image, revocation = catalog.image(channel.image), catalog.revocations.of(channel.image)
    arrow, paint = app.out.glyphs.arrow, app.out.paint
    protected = f", protected by {channel.protected_by}" if channel.protected else ""
    app.line(f"{paint(f'{args.name}@{args.channel}', 'bold')} {arrow} {image.name}@{image.version} ({image.id}){protected}")
    if revocation:
        app.line(paint(f"  revoked from {revocation.effective} on: {clean(revocation.reason)}", "yellow"))
    if not (args.set or args.protect or args.unprotect):
        rows = [
            [moment(app, one.at), one.action, version_of(catalog, one.before), version_of(catalog, one.after), one.who, one.why]
            for one in events
        ]
        app.line()
        show_table(app, ["WHEN", "WHAT", "BEFORE", "AFTER", "WHO", "WHY"], rows)
