"""Make an image again from its record alone, without network, and say how far what comes out is the same: L3 the same disk, L2 the same
file tree, L1 the same packages, L0 made from what is on record. What differs is listed by cause, with its remedy. What was made is thrown
away; what was found goes on record."""

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
  bake rebuild web --attest            and sign what was found
  bake rebuild web --deep --level 3    all that it is made on too; fails below L3
  bake rebuild web --var token=...     secret values are not on record

Exit codes: 0 the level was reached, 3 it cannot be made again, 4 the level was not reached, 5 no such image, or its record has gaps.
"""
SHOWN = 10  # paths of one cause


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="name, name@version, name@^1.2, id or digest")
    parser.add_argument(
        "--level", type=int, choices=range(4), metavar="N", help="what is asked for (default: 3 where reproducible: true, else 0)"
    )
    parser.add_argument("--deep", action="store_true", help="first all images that it is made on, the root first")
    parser.add_argument("--attest", action="store_true", help="sign what is found")
    parser.add_argument("--key", default="", metavar="NAME", help="sign with this key")
    parser.add_argument("--var", action="append", default=[], metavar="NAME=VALUE", help="the value of a secret variable")
    parser.add_argument("--connect", dest="uri", metavar="URI", help="a libvirt connection (default: one of bake's own)")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    short = []
    found: list[dict[str, Any]] = []
    with display(app, on_error_stream=True) as shown:
        baker = app.baker(shown)
        line = baker.catalog.history(baker.catalog.resolve(args.image))
        for image in reversed(line) if args.deep else line[:1]:
            wanted = args.level if args.level is not None else 3 if baker.catalog.build_of(image).reproduction.get("wanted") else 0
            verdict = baker.rebuild(image.id, secrets=variables(args.var), uri=args.uri)
            envelope = _sign(baker, verdict, args.key) if args.attest or args.key else ""
            found.append(verdict.to_json() | {"wanted": wanted} | ({"envelope": envelope} if envelope else {}))
            if not args.json:
                app.lines(list(_lines(app, verdict)))
            if verdict.level < wanted:
                short.append(f"{_title(image)} reached {verdict.level.title}, asked was L{wanted}")
    if args.json:
        app.json(found)
    if short:
        raise VerifyError("; ".join(short))
    return 0


def _sign(baker: Any, verdict: RebuildOutcome, key: str) -> str:
    from baker.trust.attest.signing import sign_rebuild

    return sign_rebuild(verdict, baker.trust, key=key)


def _title(image: ImageRecord) -> str:
    return f"{image.name}@{image.version} ({image.id})"


def _lines(app: App, verdict: RebuildOutcome) -> Iterator[str]:
    style = "green" if verdict.level == 3 else "yellow" if verdict.level >= 0 else "red"
    level = app.out.paint(f"{verdict.level.title}: {verdict.level.words}", style)
    yield f"{_title(verdict.image)} was made again in {duration(verdict.seconds)}: {level}"
    yield f"  on record  {verdict.image.digest}"
    yield f"  made now   {verdict.disk}"
    for reason in verdict.reasons:
        yield f"  {clean(reason)}"
    if verdict.packages:
        yield f"  {plural(len(verdict.packages), 'package')} in another version:"
        yield from _some(
            [f"    {clean(name)}: {before or 'none'} on record, {after or 'none'} now" for name, before, after in verdict.packages]
        )
    for group in verdict.groups:
        yield f"  {app.out.paint(group.cause.name, 'bold')}: {group.cause.what} ({plural(len(group.differences), 'path')})"
        yield f"    remedy: {group.cause.remedy}"
        yield from _some([f"    {clean(each.path)} ({', '.join(each.what)})" for each in group.differences])
    if verdict.rules:
        yield f"  rules that were applied to its files: {', '.join(verdict.rules)}"


def _some(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:SHOWN]
    if len(lines) > SHOWN:
        yield f"    and {len(lines) - SHOWN} more: --json lists all"
