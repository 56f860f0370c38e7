"""List unused AMIs of an image name, and with --apply deprecate, disable or deregister them. AMIs that a channel, a release, an instance, a
launch template or an auto-scaling group uses are kept, and so are snapshots that another AMI shares."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from baker.cli.app import App
from baker.cli.options import add_json, listed, positive, seconds
from baker.cli.releasing import show_table
from baker.core.errors import UsageError
from baker.render.text import plural

if TYPE_CHECKING:
    from baker.release.lifecycle import RetentionDecision, Rules

EXAMPLES = """
  bake lifecycle web
  bake lifecycle web --deprecate-after 30d --disable --apply
  bake lifecycle web --keep 3 --older-than 60d --deregister --delete-snapshots --apply
"""
FAILED = 3  # as for a build that AWS refuses


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the image name")
    which = parser.add_argument_group("retention (unused AMIs that meet all of these are selected)")
    which.add_argument("--keep", type=positive, default=5, metavar="N", help="keep the newest N of each region (default: 5)")
    which.add_argument("--keep-releases", type=positive, default=3, metavar="N", help="keep the last N images of each target (default: 3)")
    which.add_argument("--older-than", default="90d", metavar="TIME", help="select only AMIs older than this (default: 90d)")
    which.add_argument(
        "--unlaunched", default="30d", metavar="TIME", help="select only AMIs that were not launched for this time (default: 30d)"
    )
    which.add_argument("--shared", action="store_true", help="also select AMIs that other accounts may launch")
    what = parser.add_argument_group("actions")
    what.add_argument("--deprecate-after", metavar="TIME", help="deprecate unused AMIs that are older than this")
    what.add_argument("--disable", action="store_true", help="disable the AMIs, so that they cannot be launched; this can be undone")
    what.add_argument("--deregister", action="store_true", help="deregister the AMIs; this cannot be undone")
    what.add_argument("--delete-snapshots", action="store_true", help="with --deregister: also delete their snapshots")
    what.add_argument("--apply", action="store_true", help="make the changes (default: only list them)")
    aws = parser.add_argument_group("AWS access (defaults are those of the AWS CLI)")
    aws.add_argument(
        "--region", action="append", default=[], metavar="REGION", help="only this region (may be repeated; default: all regions with AMIs)"
    )
    aws.add_argument("--profile", metavar="NAME", help="a profile of the AWS configuration")
    aws.add_argument("--role-arn", metavar="ARN", help="a role to assume")
    aws.add_argument("--external-id", metavar="TEXT", help="the external id that the role requires")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    from baker.aws.session import Access, Aws
    from baker.release.lifecycle import Lifecycle

    rules, regions = _rules(args), listed(args.region)
    catalog = app.baker().catalog
    if not catalog.images(args.name, all=True):
        catalog.resolve(args.name)  # raises an error that lists similar names
    publications = [one for image in catalog.images(args.name, all=True) for one in catalog.publications(image.id, kind="ami")]
    if not publications:
        app.json([]) if args.json else app.note(f"{args.name} has no AMIs")
        return 0
    access = Access(
        region=regions[0] if regions else publications[0].region,
        profile=args.profile,
        role_arn=args.role_arn,
        external_id=args.external_id,
    )
    work = Lifecycle(catalog, Aws(access))
    decisions = work.plan(args.name, rules, regions)
    if args.apply:
        decisions = work.apply(decisions, rules)
    _show(args, app, decisions)
    return FAILED if any(one.error for one in decisions) else 0


def _rules(args: argparse.Namespace) -> Rules:
    from baker.release.lifecycle import Rules

    if args.delete_snapshots and not args.deregister:
        raise UsageError(
            "--delete-snapshots needs --deregister: an AMI cannot exist without its snapshots",
            hint="--deregister --delete-snapshots",
            code="usage.needs-option",
        )
    if args.apply and not (args.disable or args.deregister or args.deprecate_after):
        hint = "add --deprecate-after TIME, --disable, or --deregister [--delete-snapshots]"
        raise UsageError("--apply needs an action", hint=hint, code="usage.needs-option")
    return Rules(
        keep=args.keep,
        keep_releases=args.keep_releases,
        older_than=seconds("--older-than", args.older_than) or 0.0,
        unlaunched=seconds("--unlaunched", args.unlaunched) or 0.0,
        deprecate_after=seconds("--deprecate-after", args.deprecate_after),
        disable=args.disable,
        deregister=args.deregister,
        delete_snapshots=args.delete_snapshots,
        shared=args.shared,
    )


def _show(args: argparse.Namespace, app: App, decisions: list[RetentionDecision]) -> None:
    if args.json:
        app.json([{**asdict(one), "image": one.image.id, "version": one.image.version} for one in decisions])
        return
    doing = [one for one in decisions if one.action != "keep"]
    if app.quiet:
        app.lines([one.publication.reference for one in doing])
        return
    rows = [[one.action, one.image.version, one.publication.region, one.publication.reference, _why(one)] for one in decisions]
    show_table(app, ["ACTION", "VERSION", "REGION", "AMI", "WHY"], rows)
    for one in decisions:
        if one.error:
            app.err.line(f"could not {one.action} {one.publication.reference}: {one.error}")
    failed = sum(bool(one.error) for one in decisions)
    if args.apply:
        app.note(f"{plural(len(doing) - failed, 'AMI')} changed" + (f", {failed} failed" if failed else ""))
    elif any(one.action in ("deprecate", "disable", "deregister", "forget") for one in doing):
        app.note("nothing was changed: --apply makes these changes")
    elif doing:
        app.note("nothing was changed: choose an action with --deprecate-after TIME, --disable or --deregister")


def _why(one: RetentionDecision) -> str:
    return one.why + (f"; with {plural(len(one.snapshots), 'snapshot')}" if one.snapshots else "")
