"""Remove the least valuable layers and downloads until the cache fits its budget, and blobs that nothing refers to. Never removes an image
or what a build uses."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from baker.cli.app import App
from baker.cli.options import add_json, seconds
from baker.core.errors import UsageError
from baker.render.text import plural, size

EXAMPLES = """
  bake gc                                 shrink the cache to the default budget
  bake gc --keep-size 2GiB --dry-run
  bake gc --max-age 30d
  bake gc --keep-size 0                   remove all layers
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep-size", metavar="SIZE", help="the budget of the cache (default: 20GiB, or BAKE_CACHE_SIZE)")
    parser.add_argument("--max-age", metavar="TIME", help="remove what was not used for this time, such as 30d")
    parser.add_argument("--dry-run", action="store_true", help="only list what would be removed")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    max_age = seconds("--max-age", args.max_age or None)
    removed = app.baker().collect(budget=_budget(args.keep_size), max_age=max_age, dry_run=args.dry_run)
    if args.json:
        app.json([asdict(item) for item in removed])
        return 0
    word = "would remove" if args.dry_run else "removed"
    for item in removed:
        if not app.quiet:
            app.line(f"{word} {item.kind} {item.name}, {size(item.size)}: {item.reason}")
    total = sum(item.size for item in removed)
    app.note(
        f"{plural(len(removed), 'item')} {'to remove' if args.dry_run else 'removed'}, {size(total)}" if removed else "nothing to remove"
    )
    return 0


def _budget(text: str | None) -> int | None:
    """The budget of `--keep-size` in bytes; None if it was not given."""
    from baker.core.units import parse_size

    try:
        return None if not text else 0 if text == "0" else parse_size(text)
    except ValueError as error:
        raise UsageError(f"--keep-size: {error}", hint="for example: --keep-size 10GiB", code="usage.bad-size") from error
