"""What the verbs of channels and releases share: AWS access, options of the release strategy, tables."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from baker.cli.app import App
from baker.cli.options import listed, seconds
from baker.core.errors import UsageError
from baker.render.text import ago, table

if TYPE_CHECKING:
    from baker.api import Baker
    from baker.aws.session import Access
    from baker.catalog.catalog import Catalog
    from baker.catalog.records import Release
    from baker.core.events import Sink
    from baker.release.releases import Releaser
    from baker.release.targets.base import Strategy


def add_access(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("AWS access (defaults are those of the AWS CLI)")
    group.add_argument("--region", metavar="REGION", help="the AWS region, such as eu-west-1")
    group.add_argument("--profile", metavar="NAME", help="a profile of the AWS configuration")
    group.add_argument("--role-arn", metavar="ARN", help="a role to assume")
    group.add_argument("--external-id", metavar="TEXT", help="the external id that the role requires")


def access(args: argparse.Namespace) -> Access:
    from baker.aws.session import Access

    return Access(region=args.region, profile=args.profile, role_arn=args.role_arn, external_id=args.external_id)


def add_strategy(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("instance refresh (defaults are those of the group)")
    group.add_argument("--min-healthy", type=int, metavar="PERCENT", help="how much of the group stays in service (0 to 100)")
    group.add_argument("--max-healthy", type=int, metavar="PERCENT", help="how far the group may grow (100 to 200; needs --min-healthy)")
    group.add_argument("--warm-up", metavar="TIME", help="how long a new instance warms up, such as 60s")
    group.add_argument("--checkpoints", action="append", default=[], metavar="PERCENT,...", help="where to pause, such as 25,50,100")
    group.add_argument("--checkpoint-delay", metavar="TIME", help="how long to pause at each checkpoint (default: 1h)")
    group.add_argument("--bake-time", metavar="TIME", help="how long to watch the group before the release succeeds")
    group.add_argument(
        "--alarm", action="append", default=[], metavar="NAME", help="a CloudWatch alarm that fails the release (may be repeated)"
    )
    group.add_argument("--skip-matching", action="store_true", help="do not replace instances that have this version already")
    group.add_argument("--no-auto-rollback", action="store_true", help="do not roll the group back if the release fails")
    group.add_argument("--set-default", action="store_true", help="for a launch template (lt/): make the new version its default")
    group.add_argument("--timeout", metavar="TIME", help="fail the release after this time (default: 6h plus the delays)")
    parser.add_argument(
        "--no-wait", action="store_true", help="start the release without waiting; `bake release NAME --resume` waits for its end"
    )
    parser.add_argument("--why", default="", metavar="TEXT", help="the reason, kept on record")


def strategy(args: argparse.Namespace) -> Strategy:
    """The strategy that the options describe. UsageError for values that AWS would reject."""
    from baker.release.targets.base import Strategy

    points = listed(args.checkpoints)
    try:
        checkpoints = tuple(int(point.rstrip("%")) for point in points)
    except ValueError as error:
        raise UsageError(
            f"--checkpoints {','.join(points)} is not a list of percentages", hint="--checkpoints 25,50,100", code="usage.bad-checkpoints"
        ) from error
    chosen = Strategy(
        min_healthy=args.min_healthy,
        max_healthy=args.max_healthy,
        warm_up=seconds("--warm-up", args.warm_up),
        checkpoints=checkpoints,
        checkpoint_delay=seconds("--checkpoint-delay", args.checkpoint_delay),
        bake_time=seconds("--bake-time", args.bake_time),
        alarms=tuple(args.alarm),
        skip_matching=args.skip_matching,
        auto_rollback=not args.no_auto_rollback,
        set_default=args.set_default,
        timeout=seconds("--timeout", args.timeout),
    )
    _check(chosen)
    return chosen


def _check(strategy: Strategy) -> None:
    low, high = strategy.min_healthy, strategy.max_healthy
    if low is not None and not 0 <= low <= 100:
        raise UsageError(f"--min-healthy {low} is not a percentage", hint="use 0 to 100", code="usage.bad-percentage")
    if high is not None and (low is None or not 100 <= high <= 200 or high - low > 100):
        raise UsageError(
            f"--max-healthy {high} does not agree with --min-healthy {low}",
            hint="use 100 to 200, at most 100 above --min-healthy",
            code="usage.bad-percentage",
        )
    rising = all(a < b for a, b in zip(strategy.checkpoints, strategy.checkpoints[1:], strict=False))
    if strategy.checkpoints and (not rising or strategy.checkpoints[0] < 1 or strategy.checkpoints[-1] != 100):
        shown = ",".join(map(str, strategy.checkpoints))
        raise UsageError(
            f"--checkpoints {shown} would not replace every instance",
            hint="use rising percentages that end with 100: 25,50,100",
            code="usage.bad-checkpoints",
        )
    if strategy.checkpoint_delay is not None and not strategy.checkpoints:
        raise UsageError("--checkpoint-delay needs --checkpoints", hint="--checkpoints 25,50,100", code="usage.needs-option")


def releaser(baker: Baker, sink: Sink | None = None) -> Releaser:
    from baker.core.events import Null
    from baker.release.releases import Releaser

    return Releaser(baker.catalog, baker.leases, sink or Null())


def to_json(catalog: Catalog, release: Release) -> dict[str, Any]:
    image = catalog.image(release.image)
    return {**asdict(release), "release": release.title, "version": image.version}


def show_end(app: App, args: argparse.Namespace, catalog: Catalog, release: Release) -> None:
    """Print how a release ended, or that it is still running."""
    if args.json:
        app.json(to_json(catalog, release))
    elif app.quiet:
        app.line(release.title)
    else:
        image = catalog.image(release.image)
        end = {"succeeded": "is released to", "running": "is being released to"}.get(release.status, release.status)
        app.line(f"{image.name}@{image.version} {end} {release.target}: release {release.title} of {release.name}")
        if release.status == "running":
            app.note(f"`bake release {release.name} --resume` waits for its end")


def show_table(app: App, headers: list[str], rows: list[list[str]]) -> None:
    lines = table(headers, rows, width=app.out.width, ellipsis=app.out.glyphs.ellipsis)
    app.lines([app.out.paint(lines[0], "bold"), *lines[1:]])


def version_of(catalog: Catalog, image_id: str | None) -> str:
    """The version of an image; "-" if there is no image."""
    return catalog.image(image_id).version if image_id else "-"


def moment(app: App, at: str) -> str:
    return ago(at, app.now())
