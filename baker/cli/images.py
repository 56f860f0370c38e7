"""List images, newest first."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from dataclasses import asdict

from baker.catalog.records import ImageRecord, Revocation
from baker.cli.app import App
from baker.cli.options import add_json
from baker.core.errors import UsageError
from baker.core.host_facts import now
from baker.render.text import ago, size

EXAMPLES = """
  bake images
  bake images --name 'web*' --label team=shop
  bake images --json | jq -r '.[0].digest'
  bake rm $(bake images --quiet --name old)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", metavar="PATTERN", help="list only images whose name matches a shell pattern")
    parser.add_argument(
        "--label", action="append", default=[], metavar="KEY[=VALUE]", help="list only images with this label (may be repeated)"
    )
    parser.add_argument("--unverified", action="store_true", help="list only images that are not verified")
    parser.add_argument("--names", action="store_true", help="print only the names, each once")
    add_json(parser, "print an array of objects with the record of each image")


def run(args: argparse.Namespace, app: App) -> int:
    catalog = app.baker().catalog
    images = [image for image in catalog.images(labels=labels(args), pattern=args.name) if matches(image, args)]
    channels: dict[str, list[str]] = {}
    for channel in catalog.channels.all():
        channels.setdefault(channel.image, []).append(channel.channel)
    revoked = catalog.revocations.all()
    if args.json:
        app.json([asdict(i) | {"channels": channels.get(i.id, []), "revoked": _revoked(revoked.get(i.id))} for i in images])
    elif args.names:
        app.lines(sorted({image.name for image in images}))
    elif app.quiet:
        app.lines([image.id for image in images])
    elif images:
        app.lines(
            rows(
                images,
                app,
                catalog.images_by_id([i.parent for i in images if i.parent]),
                channels,
                set(catalog.revocations.in_force(now())),
            )
        )
    else:
        app.note("no images" + (" match" if args.name or args.label or args.unverified else " yet: `bake build TEMPLATE` builds one"))
    return 0


def labels(args: argparse.Namespace) -> dict[str, str | None]:
    """The labels of `--label`; the value is None if any value matches. UsageError for an empty key."""
    wanted: dict[str, str | None] = {}
    for label in args.label:
        key, sign, value = label.partition("=")
        if not key:
            raise UsageError(f"{label!r} is not a label", hint="use --label team or --label team=shop", code="usage.bad-label")
        wanted[key] = value if sign else wanted.get(key)
    return wanted


def matches(image: ImageRecord, args: argparse.Namespace) -> bool:
    """Whether an image has the verification state and all labels asked for. The catalog has filtered by name already."""
    if args.unverified and image.verified:
        return False
    pairs = (label.partition("=") for label in args.label)
    return all(key in image.labels and (not sign or image.labels[key] == value) for key, sign, value in pairs)


def rows(
    images: list[ImageRecord], app: App, known: dict[str, ImageRecord], channels: Mapping[str, list[str]], revoked: Collection[str]
) -> list[str]:
    """The table of images; it has a column of channels if any image is in one."""
    moment = app.now()
    in_some = any(image.id in channels for image in images)
    body = [
        [
            image.name,
            image.version,
            image.id,
            ago(image.created, moment),
            size(image.size),
            "revoked" if image.id in revoked else "committed" if image.origin == "committed" else "yes" if image.verified else "no",
            parent(image, known),
            *([",".join(channels.get(image.id, ["-"]))] if in_some else []),
        ]
        for image in images
    ]
    headers = ["NAME", "VERSION", "ID", "CREATED", "SIZE", "VERIFIED", "PARENT", *(["CHANNELS"] if in_some else [])]
    return app.table(headers, body, right={4})


def _revoked(revocation: Revocation | None) -> dict[str, object] | None:
    return asdict(revocation) if revocation else None


def parent(image: ImageRecord, known: dict[str, ImageRecord]) -> str:
    """The parent image as name@version."""
    if image.parent is None:
        return "-"
    above = known.get(image.parent)
    return f"{above.name}@{above.version}" + (" (removed)" if above.removed else "") if above else image.parent
