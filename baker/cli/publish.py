"""Bring a baked image to where it is used: its disk is uploaded, registered, booted once, and put on record.

An upload that was killed goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from baker.cli.app import App
from baker.cli.display import display
from baker.cli.options import add_json, listed, pairs
from baker.render.text import duration, size

if TYPE_CHECKING:
    from baker.publish.base import Published

EXAMPLES = """
  bake publish web --to ami
  bake publish web@1.4.0 --to ami --region eu-central-1,eu-west-1 --tag team=shop
  bake publish web --to ami --kms-key arn:aws:kms:eu-central-1:111122223333:key/...
"""
BOOT_MODES = ("legacy-bios", "uefi", "uefi-preferred")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="name, name@version, name@^1.2, id or digest")
    parser.add_argument("--to", required=True, metavar="TARGET", help="ami, or the kind of a plugin")
    parser.add_argument(
        "--region",
        action="append",
        default=[],
        metavar="REGION",
        help="where; the first is uploaded to, others get copies (may be repeated)",
    )
    parser.add_argument("--name", default="", help="what it is called there (default: NAME-VERSION-ID)")
    parser.add_argument("--tag", action="append", default=[], metavar="KEY=VALUE", help="a tag of what is made (may be repeated)")
    parser.add_argument(
        "--kms-key",
        action="append",
        default=[],
        metavar="ARN",
        help="encrypt with this key, in its region (may be repeated, one per region)",
    )
    parser.add_argument("--boot-mode", choices=BOOT_MODES, default="", help="(default: by the firmware that the image was verified with)")
    parser.add_argument("--no-verify", action="store_true", help="do not boot it once before it is put on record")
    parser.add_argument("--instance-type", default="", metavar="TYPE", help="what to boot it on (default: t3.micro or t4g.micro)")
    parser.add_argument("--subnet", default="", metavar="ID", help="where to boot it (default: the region's default network)")
    parser.add_argument("--profile", metavar="NAME", help="whose credentials, as the AWS CLI has profiles")
    parser.add_argument("--force", action="store_true", help="publish it again where it is published already")
    add_json(parser, "what was published, as JSON")


def run(args: argparse.Namespace, app: App) -> int:
    from baker.publish.base import PublishOptions

    options = PublishOptions(
        regions=listed(args.region),
        name=args.name,
        tags=pairs(args.tag, "--tag", "KEY=VALUE", "team=shop"),
        kms_keys=tuple(args.kms_key),
        boot_mode=args.boot_mode,
        verify=not args.no_verify,
        force=args.force,
        profile=args.profile,
        instance_type=args.instance_type,
        subnet=args.subnet,
    )
    with display(app, on_error_stream=True) as shown:
        published = app.baker(shown).publish(args.image, args.to, options)
    if args.json:
        app.json([asdict(one.publication) | {"unchanged": one.unchanged, "sent": one.sent, "seconds": one.seconds} for one in published])
    else:
        app.lines([one.publication.reference if app.quiet else _line(one) for one in published])
    return 0


def _line(one: Published) -> str:
    where = f" in {one.publication.region}" if one.publication.region else ""
    if one.unchanged:
        return f"{one.publication.reference}{where}: published already"
    parts = [f"sent {size(one.sent)}"] if one.sent else []
    copied = one.publication.details.get("copied_from")
    parts += [f"copied from {copied}"] if copied else []
    verified = "verified" if one.publication.details.get("verified") else "not verified"
    return f"{one.publication.reference}{where}: {', '.join([*parts, verified, duration(one.seconds)])}"
