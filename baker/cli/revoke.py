"""Revoke an image, so that it is refused as a source, in channels and for release. --descendants covers its descendants, also those that
are built later. --undo lifts the revocation."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from baker.cli.app import App
from baker.cli.options import add_json, seconds
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
    parser.add_argument("--reason", metavar="TEXT", help="the reason, shown wherever the image is refused")
    time = parser.add_mutually_exclusive_group()
    time.add_argument("--at", metavar="TIME", help="when it takes effect: 2026-12-24T18:00:00Z (without an offset: UTC)")
    time.add_argument("--in", dest="in_", metavar="TIME", help="how long until it takes effect: 3d")
    parser.add_argument("--descendants", action="store_true", help="also revoke its descendants, existing and future ones")
    parser.add_argument("--rollback-channels", action="store_true", help="point channels that have the image back to their previous one")
    parser.add_argument("--undo", action="store_true", help="lift the revocation of the image and of its descendants")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    catalog = app.baker().catalog
    image = catalog.resolve(args.image)
    if args.undo:
        if args.reason or args.at or args.in_ or args.descendants or args.rollback_channels:
            hint = f"bake revoke {args.image} --undo"
            raise UsageError("--undo cannot be combined with other options", hint=hint, code="usage.conflicting-options")
        return _undo(args, app, catalog, image)
    if not (args.reason or "").strip():
        raise UsageError("a revocation needs a reason", hint=f"bake revoke {args.image} --reason TEXT", code="usage.missing-argument")
    if args.rollback_channels and (args.at or args.in_):
        raise UsageError(
            "--rollback-channels works at once, so it cannot be combined with --at or --in",
            hint="leave out one of them",
            code="usage.conflicting-options",
        )
    from baker.release.revocations import revoke

    done = revoke(
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
                "revocation": asdict(done.revocation),
                "descendants": [one.id for one in done.descendants],
                "channels": [asdict(one) for one in done.channels],
                "rolled_back": [asdict(one) for one, _ in done.moved],
                "releases": [asdict(one) for one in done.releases],
            }
        )
        return 0
    more = f" and {plural(len(done.descendants), 'descendant')}" if done.descendants else ""
    app.line(f"revoked {image.name} {image.version} ({image.id}){more} with effect from {done.revocation.effective}")
    for channel, previous in done.moved:
        app.note(f"{channel.name}@{channel.channel} points to {previous.name}@{previous.version} again")
    for channel in done.channels:
        app.note(f"{channel.name}@{channel.channel} still points to it: bake channel {channel.name} {channel.channel} --set OTHER")
    for release in done.releases:
        app.note(f"{release.target} still runs it (release {release.title} of {release.name}): bake rollback {release.name}")
    return 0


def _undo(args: argparse.Namespace, app: App, catalog: Catalog, image: ImageRecord) -> int:
    from baker.core.host_facts import now, who

    lifted = catalog.revocations.undo(image.id, who=who(), at=now())
    if args.json:
        app.json({"undone": asdict(lifted)})
    else:
        app.line(f"{image.name} {image.version} ({image.id}) is no longer revoked; the reason was: {clean(lifted.reason)}")
    return 0


def _effective(args: argparse.Namespace, app: App) -> str:
    """The time at which it takes effect, in the format of the catalog; "" for immediately."""
    moment = None
    if args.at:
        moment = when(args.at)
        if moment is None:
            raise UsageError(f"--at {args.at!r} is not a time", hint="--at 2026-12-24T18:00:00Z, or --in 3d", code="usage.bad-time")
    elif args.in_:
        moment = app.now() + timedelta(seconds=seconds("--in", args.in_) or 0)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else ""
