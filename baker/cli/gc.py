"""Make room: remove the layers and downloads that are worth least, and what nothing refers to. Never an image, never what a build uses."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from baker.cli.app import App
from baker.cli.options import add_json
from baker.core.errors import UsageError
from baker.render.text import plural, size

EXAMPLES = """
  bake gc                                 down to the default budget
  bake gc --keep-size 2GiB --dry-run
  bake gc --max-age 30d
  bake gc --keep-size 0                   no layer stays
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep-size", metavar="SIZE", help="what the cache may take (default: 20GiB, or BAKE_CACHE_SIZE)")
    parser.add_argument("--max-age", metavar="TIME", help="remove what nobody used for so long, such as 30d")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    from baker.core.units import parse_duration, parse_size

    try:
        budget = parse_size(args.keep_size) if args.keep_size and args.keep_size != "0" else 0 if args.keep_size else None
        max_age = parse_duration(args.max_age) if args.max_age else None
    except ValueError as error:
        raise UsageError(str(error), hint="for example: --keep-size 10GiB --max-age 30d") from error
    gone = app.baker().collect(budget=budget, max_age=max_age, dry_run=args.dry_run)
    if args.json:
        app.json([asdict(item) for item in gone])
        return 0
    word = "would remove" if args.dry_run else "removed"
    for item in gone:
        if not app.quiet:
            app.line(f"{word} {item.kind} {item.name}, {size(item.size)}: {item.reason}")
    total = sum(item.size for item in gone)
    app.note(f"{plural(len(gone), 'thing')} {'to remove' if args.dry_run else 'removed'}, {size(total)}" if gone else "nothing to remove")
    return 0
