"""Rebuild an image from its record alone, without network, and compare: L3 the same disk, L2 the same file tree, L1 the same packages, L0
built from the recorded inputs. Differences are listed by cause, with a remedy. The rebuilt image is discarded; the level goes on record."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from baker.cli.app import App
from baker.cli.display import display
from baker.cli.options import add_json, variables
from baker.core.errors import VerifyError
from baker.render.text import clean, duration, plural

if TYPE_CHECKING:
    from baker.catalog.records import ImageRecord
    from baker.rebuild.rebuild import RebuildOutcome

EXAMPLES = """
  bake rebuild web
  bake rebuild web --attest            sign the result
  bake rebuild web --deep --level 3    rebuild all ancestors too; fail below L3
  bake rebuild web --var token=...     give a secret value, which is not on record

Exit codes: 0 the level was reached, 3 the rebuild failed, 4 the level was not reached,
5 no such image, or its record is incomplete.
"""
SHOWN = 10  # number of paths shown of one cause


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="name, name@version, name@^1.2, name@channel, id or digest")
    parser.add_argument(
        "--level",
        type=int,
        choices=range(4),
        metavar="N",
        help="the level to reach (default: 3 if the template says `reproducible: true`, else 0)",
    )
    parser.add_argument("--deep", action="store_true", help="rebuild all ancestors first, starting at the root")
    parser.add_argument("--attest", action="store_true", help="sign the result")
    parser.add_argument("--key", default="", metavar="NAME", help="sign the result with this key")
    parser.add_argument("--var", action="append", default=[], metavar="NAME=VALUE", help="the value of a secret variable")
    parser.add_argument(
        "--connect", dest="uri", metavar="URI", help="libvirt connection, such as qemu:///system (default: libvirt in the bake process)"
    )
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    missed = []
    results: list[dict[str, Any]] = []
    with display(app, on_error_stream=True) as shown:
        baker = app.baker(shown)
        line = baker.catalog.history(baker.catalog.resolve(args.image))
        for image in reversed(line) if args.deep else line[:1]:
            wanted = args.level if args.level is not None else 3 if baker.catalog.build_of(image).reproduction.get("wanted") else 0
            outcome = baker.rebuild(image.id, secrets=variables(args.var), uri=args.uri)
            envelope = _sign(baker, outcome, args.key) if args.attest or args.key else ""
            results.append(outcome.to_json() | {"wanted": wanted} | ({"envelope": envelope} if envelope else {}))
            if not args.json:
                app.lines(list(_lines(app, outcome)))
            if outcome.level < wanted:
                missed.append(f"{_title(image)} reached {outcome.level.title} instead of L{wanted}")
    if args.json:
        app.json(results)
    if missed:
        raise VerifyError("; ".join(missed), hint="the causes above have their remedies", code="rebuild.level-not-reached")
    return 0


def _sign(baker: Any, outcome: RebuildOutcome, key: str) -> str:
    from baker.trust.attest.signing import sign_rebuild

    return sign_rebuild(outcome, baker.trust, key=key)


def _title(image: ImageRecord) -> str:
    return f"{image.name}@{image.version} ({image.id})"


def _lines(app: App, outcome: RebuildOutcome) -> Iterator[str]:
    style = "green" if outcome.level == 3 else "yellow" if outcome.level >= 0 else "red"
    level = app.out.paint(f"{outcome.level.title}: {outcome.level.words}", style)
    yield f"{_title(outcome.image)} was rebuilt in {duration(outcome.seconds)}: {level}"
    yield f"  on record  {outcome.image.digest}"
    yield f"  rebuilt    {outcome.disk}"
    for reason in outcome.reasons:
        yield f"  {clean(reason)}"
    if outcome.packages:
        yield f"  {plural(len(outcome.packages), 'package')} with another version:"
        yield from _some(
            [f"    {clean(name)}: {before or 'none'} on record, {after or 'none'} rebuilt" for name, before, after in outcome.packages]
        )
    for group in outcome.groups:
        yield f"  {app.out.paint(group.cause.name, 'bold')}: {group.cause.what} ({plural(len(group.differences), 'path')})"
        yield f"    remedy: {group.cause.remedy}"
        yield from _some([f"    {clean(each.path)} ({', '.join(each.what)})" for each in group.differences])
    if outcome.rules:
        yield f"  rules applied to its files: {', '.join(outcome.rules)}"


def _some(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:SHOWN]
    if len(lines) > SHOWN:
        yield f"    and {len(lines) - SHOWN} more; --json lists all"
