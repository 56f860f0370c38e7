"""Clean up after killed builds: remove their processes, machines, disks and directories, and blobs that nothing refers to."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from baker.cli.app import App
from baker.cli.options import add_json
from baker.render.text import plural

EXAMPLES = """
  bake sweep --dry-run         list what would be removed
  bake sweep
  bake sweep --kept            also remove machines that --on-error=abort or --keep-failed kept
"""
FAILED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only list what would be removed")
    parser.add_argument("--kept", action="store_true", help="also remove machines that were kept for inspection")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    swept = app.baker().sweep(kept=args.kept, dry_run=args.dry_run)
    failed = [item for item in swept if item.error]
    if args.json:
        app.json([asdict(item) for item in swept])
        return FAILED if failed else 0
    for item in swept:
        what = f"{item.kind} {item.name}" + (f" of build {item.build}" if item.build else ", which nothing refers to")
        if item.error:
            app.err.line(f"cannot remove {what}: {item.error}")
        elif not app.quiet:
            app.line(f"{'would remove' if args.dry_run else 'removed'} {what}")
    if not swept:
        app.note("nothing to clean up")
    elif not args.dry_run:
        app.note(
            f"{plural(len(swept) - len(failed), 'item')} removed" + (f", {len(failed)} failed: run `bake sweep` again" if failed else "")
        )
    return FAILED if failed else 0
