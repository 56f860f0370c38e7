"""Revoke an image: from then on it is refused as a source, in channels and for release. With its descendants, those that are baked later
too. --undo takes it back."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from baker.cli.app import App
from baker.cli.options import add_json
from baker.cli.releasing import seconds
from baker.core.errors import UsageError
from baker.render.text import clean, plural, when

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog
    from baker.catalog.records import ImageRecord

EXAMPLES = """
  bake revoke web@1.3.0 --reason 'CVE-2026-1 in openssl'
  bake revoke debian-13@13.1.0 --reason 'end of life' --in 30d --descendants
  bake revoke web@1.3.0 --reason 'broken' --rollback-channels
  bake revoke web@1.3.0 --undo
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="name@version, name@channel, id or digest")
    parser.add_argument("--reason", metavar="TEXT", help="why; shown to everybody who meets the image")
    time = parser.add_mutually_exclusive_group()
    time.add_argument("--at", metavar="TIME", help="from when on: 2026-12-24T18:00:00Z (without an offset: UTC)")
    time.add_argument("--in", dest="in_", metavar="TIME", help="from so much later on: 3d")
    parser.add_argument("--descendants", action="store_true", help="also what is made on it, now or later")
    parser.add_argument("--rollback-channels", action="store_true", help="give channels that point to it their former image back")
    parser.add_argument("--undo", action="store_true", help="the image may be used again, and so may its descendants")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    catalog = app.baker().catalog
    image = catalog.resolve(args.image)
    if args.undo:
        if args.reason or args.at or args.in_ or args.descendants or args.rollback_channels:
            raise UsageError("--undo goes alone", hint=f"bake revoke {args.image} --undo")
        return _undo(args, app, catalog, image)
    if not (args.reason or "").strip():
        raise UsageError("a revocation needs its reason", hint=f"bake revoke {args.image} --reason TEXT")
    if args.rollback_channels and (args.at or args.in_):
        raise UsageError("channels are given back at once, not at a time to come", hint="--rollback-channels without --at and --in")
    from baker.release.revocations import revoke

    found = revoke(
        catalog,
        image,
        args.reason.strip(),
        effective=_effective(args, app),
        descendants=args.descendants,
        rollback_channels=args.rollback_channels,
    )
    if args.json:
        app.json(
            {
                "revocation": asdict(found.revocation),
                "descendants": [one.id for one in found.descendants],
                "channels": [asdict(one) for one in found.channels],
                "rolled_back": [asdict(one) for one, _ in found.moved],
                "releases": [asdict(one) for one in found.releases],
            }
        )
        return 0
    more = f" and {plural(len(found.descendants), 'descendant')}" if found.descendants else ""
    app.line(f"revoked {image.name} {image.version} ({image.id}){more} from {found.revocation.effective} on")
    for channel, back in found.moved:
        app.note(f"{channel.name}@{channel.channel} points to {back.name}@{back.version} again")
    for channel in found.channels:
        app.note(f"{channel.name}@{channel.channel} still points to it: bake channel {channel.name} {channel.channel} --set OTHER")
    for release in found.releases:
        app.note(f"{release.target} runs it by release {release.title} of {release.name}: bake rollback {release.name}")
    return 0


def _undo(args: argparse.Namespace, app: App, catalog: Catalog, image: ImageRecord) -> int:
    from baker.core.host_facts import now, who

    gone = catalog.revocations.undo(image.id, who=who(), at=now())
    if args.json:
        app.json({"undone": asdict(gone)})
    else:
        app.line(f"{image.name} {image.version} ({image.id}) may be used again; it was revoked for: {clean(gone.reason)}")
    return 0


def _effective(args: argparse.Namespace, app: App) -> str:
    """When it takes effect as the catalog writes times; "" for at once."""
    moment = None
    if args.at:
        moment = when(args.at)
        if moment is None:
            raise UsageError(f"--at {args.at!r} is no time", hint="--at 2026-12-24T18:00:00Z, or --in 3d")
    elif args.in_:
        moment = app.now() + timedelta(seconds=seconds("--in", args.in_) or 0)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else ""
