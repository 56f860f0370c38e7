"""What the verbs about channels and releases have in common: AWS access, the strategy's flags, tables."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from baker.cli.app import App
from baker.cli.options import listed
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
    group = parser.add_argument_group("AWS (what is left out is found as the AWS CLI finds it)")
    group.add_argument("--region", metavar="REGION", help="such as eu-west-1")
    group.add_argument("--profile", metavar="NAME", help="of the AWS configuration")
    group.add_argument("--role-arn", metavar="ARN", help="a role to assume with those credentials")
    group.add_argument("--external-id", metavar="TEXT", help="that the role asks for")


def access(args: argparse.Namespace) -> Access:
    from baker.aws.session import Access

    return Access(region=args.region, profile=args.profile, role_arn=args.role_arn, external_id=args.external_id)


def add_strategy(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("instance refresh (what is left out is the group's own)")
    group.add_argument("--min-healthy", type=int, metavar="PERCENT", help="of the group that stays in service (0 to 100)")
    group.add_argument("--max-healthy", type=int, metavar="PERCENT", help="that the group may grow to (100 to 200; needs --min-healthy)")
    group.add_argument("--warm-up", metavar="TIME", help="that a new instance needs, such as 60s")
    group.add_argument("--checkpoints", action="append", default=[], metavar="PERCENT,...", help="where to stand still, such as 25,50,100")
    group.add_argument("--checkpoint-delay", metavar="TIME", help="for how long at each (default: 1h)")
    group.add_argument("--bake-time", metavar="TIME", help="to watch the group at the end before it counts as done")
    group.add_argument("--alarm", action="append", default=[], metavar="NAME", help="a CloudWatch alarm that fails it (may be repeated)")
    group.add_argument("--skip-matching", action="store_true", help="leave instances alone that have this version already")
    group.add_argument("--no-auto-rollback", action="store_true", help="leave the group as it is when the release fails")
    group.add_argument("--set-default", action="store_true", help="of a launch template (lt/): make the new version the default one")
    group.add_argument("--timeout", metavar="TIME", help="after which it has failed (default: 6h and the delays)")
    parser.add_argument("--no-wait", action="store_true", help="only begin; --resume waits for the end")
    parser.add_argument("--why", default="", metavar="TEXT", help="for the record")


def strategy(args: argparse.Namespace) -> Strategy:
    """The strategy that the flags say. UsageError for what AWS would refuse."""
    from baker.release.targets.base import Strategy

    points = listed(args.checkpoints)
    try:
        checkpoints = tuple(int(point.rstrip("%")) for point in points)
    except ValueError as error:
        raise UsageError(f"--checkpoints {','.join(points)} are no percentages", hint="--checkpoints 25,50,100") from error
    found = Strategy(
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
    _check(found)
    return found


def _check(found: Strategy) -> None:
    low, high = found.min_healthy, found.max_healthy
    if low is not None and not 0 <= low <= 100:
        raise UsageError(f"--min-healthy {low} is no percentage", hint="0 to 100")
    if high is not None and (low is None or not 100 <= high <= 200 or high - low > 100):
        raise UsageError(f"--max-healthy {high} does not go with --min-healthy {low}", hint="100 to 200, at most 100 above --min-healthy")
    rising = all(a < b for a, b in zip(found.checkpoints, found.checkpoints[1:], strict=False))
    if found.checkpoints and (not rising or found.checkpoints[0] < 1 or found.checkpoints[-1] != 100):
        shown = ",".join(map(str, found.checkpoints))
        raise UsageError(f"--checkpoints {shown} would not replace every instance", hint="rising percentages, 100 the last: 25,50,100")
    if found.checkpoint_delay is not None and not found.checkpoints:
        raise UsageError("--checkpoint-delay needs --checkpoints", hint="--checkpoints 25,50,100")


def seconds(flag: str, text: str | None) -> float | None:
    """The seconds in a flag's value; None where it was not given."""
    from baker.core.units import parse_duration

    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from error


def releaser(baker: Baker, sink: Sink | None = None) -> Releaser:
    from baker.core.events import Null
    from baker.release.releases import Releaser

    return Releaser(baker.catalog, baker.leases, sink or Null())


def to_json(catalog: Catalog, release: Release) -> dict[str, Any]:
    image = catalog.image(release.image)
    return {**asdict(release), "release": release.title, "version": image.version}


def show_end(app: App, args: argparse.Namespace, catalog: Catalog, release: Release) -> None:
    """How a release ended, or that it is on its way."""
    if args.json:
        app.json(to_json(catalog, release))
    elif app.quiet:
        app.line(release.title)
    else:
        image = catalog.image(release.image)
        end = {"succeeded": "runs", "running": "is on its way to"}.get(release.status, release.status)
        app.line(f"{image.name}@{image.version} {end} {release.target}: release {release.title} of {release.name}")
        if release.status == "running":
            app.note(f"bake release {release.name} --resume waits for its end")


def show_table(app: App, headers: list[str], rows: list[list[str]]) -> None:
    lines = table(headers, rows, width=app.out.width, ellipsis=app.out.glyphs.ellipsis)
    app.lines([app.out.paint(lines[0], "bold"), *lines[1:]])


def version_of(catalog: Catalog, image_id: str | None) -> str:
    """The version of an image; "-" for none."""
    return catalog.image(image_id).version if image_id else "-"


def moment(app: App, at: str) -> str:
    return ago(at, app.now())
