"""Say which AMIs of an image name nothing uses any more, and with --apply deprecate, disable or deregister them. Never one that a channel,
a release, an instance, a launch template or an auto-scaling group still uses, never a snapshot that another AMI shares."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from baker.cli.app import App
from baker.cli.options import add_json, listed, positive
from baker.cli.releasing import seconds, show_table
from baker.core.errors import UsageError
from baker.render.text import plural

if TYPE_CHECKING:
    from baker.release.lifecycle import RetentionDecision, Rules

EXAMPLES = """
  bake lifecycle web
  bake lifecycle web --deprecate-after 30d --disable --apply
  bake lifecycle web --keep 3 --older-than 60d --deregister --delete-snapshots --apply
"""
FAILED = 3  # as a build that AWS refuses


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the images")
    which = parser.add_argument_group("which AMIs (unused ones that fit all of these)")
    which.add_argument("--keep", type=positive, default=5, metavar="N", help="never the newest N of a region (default: 5)")
    which.add_argument("--keep-releases", type=positive, default=3, metavar="N", help="never the last N images a target ran (default: 3)")
    which.add_argument("--older-than", default="90d", metavar="TIME", help="only older ones (default: 90d)")
    which.add_argument("--unlaunched", default="30d", metavar="TIME", help="only those not launched for so long (default: 30d)")
    which.add_argument("--shared", action="store_true", help="also those that other accounts may launch")
    what = parser.add_argument_group("what with them")
    what.add_argument("--deprecate-after", metavar="TIME", help="deprecate unused ones from this age on")
    what.add_argument("--disable", action="store_true", help="nobody can launch them any more; can be undone")
    what.add_argument("--deregister", action="store_true", help="they are gone")
    what.add_argument("--delete-snapshots", action="store_true", help="with --deregister: their snapshots, too")
    what.add_argument("--apply", action="store_true", help="do it (default: only say it)")
    aws = parser.add_argument_group("AWS (what is left out is found as the AWS CLI finds it)")
    aws.add_argument(
        "--region", action="append", default=[], metavar="REGION", help="only this one (may be repeated; default: all it is in)"
    )
    aws.add_argument("--profile", metavar="NAME", help="of the AWS configuration")
    aws.add_argument("--role-arn", metavar="ARN", help="a role to assume with those credentials")
    aws.add_argument("--external-id", metavar="TEXT", help="that the role asks for")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    from baker.aws.session import Access, Aws
    from baker.release.lifecycle import Lifecycle

    rules, regions = _rules(args), listed(args.region)
    catalog = app.baker().catalog
    if not catalog.images(args.name, all=True):
        catalog.resolve(args.name)  # says what there is
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
    verdicts = work.plan(args.name, rules, regions)
    if args.apply:
        verdicts = work.apply(verdicts, rules)
    _show(args, app, verdicts)
    return FAILED if any(one.error for one in verdicts) else 0


def _rules(args: argparse.Namespace) -> Rules:
    from baker.release.lifecycle import Rules

    if args.delete_snapshots and not args.deregister:
        raise UsageError("a snapshot cannot go while its AMI stays", hint="--deregister --delete-snapshots")
    if args.apply and not (args.disable or args.deregister or args.deprecate_after):
        raise UsageError("what is to be done with them?", hint="--deprecate-after TIME, --disable, or --deregister [--delete-snapshots]")
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


def _show(args: argparse.Namespace, app: App, verdicts: list[RetentionDecision]) -> None:
    if args.json:
        app.json([{**asdict(one), "image": one.image.id, "version": one.image.version} for one in verdicts])
        return
    doing = [one for one in verdicts if one.action != "keep"]
    if app.quiet:
        app.lines([one.publication.reference for one in doing])
        return
    rows = [[one.action, one.image.version, one.publication.region, one.publication.reference, _why(one)] for one in verdicts]
    show_table(app, ["ACTION", "VERSION", "REGION", "AMI", "WHY"], rows)
    for one in verdicts:
        if one.error:
            app.err.line(f"could not {one.action} {one.publication.reference}: {one.error}")
    failed = sum(bool(one.error) for one in verdicts)
    if args.apply:
        app.note(f"{plural(len(doing) - failed, 'AMI')} done" + (f", {failed} not" if failed else ""))
    elif any(one.action in ("deprecate", "disable", "deregister", "forget") for one in doing):
        app.note("nothing was changed: --apply does it")
    elif doing:
        app.note("nothing was changed: --deprecate-after TIME, --disable or --deregister says what is to be done with the candidates")


def _why(one: RetentionDecision) -> str:
    return one.why + (f"; {plural(len(one.snapshots), 'snapshot')} too" if one.snapshots else "")
