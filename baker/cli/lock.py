"""Write the lock file of a template, NAME.lock.yaml beside it: source, files, package indexes, packages, tools. Commit it: `bake build
--locked` fails if anything differs from it. The exit code is 1 if --check finds that the lock file would change."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from baker.cli.app import App
from baker.cli.build import report_failure
from baker.cli.display import display
from baker.cli.options import add_json, add_template_options, request_of
from baker.core.errors import UsageError

if TYPE_CHECKING:
    from baker.plan.requests import BuildRequest

EXAMPLES = """
  bake lock web.yaml
  bake lock web.yaml --no-build
  bake lock --all --no-build
  bake lock --update web.yaml
  bake lock --update --check web.yaml || echo "the lock file would change"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", metavar="FILE", help="a template file; its lock file covers all images of its matrix")
    add_template_options(parser)
    parser.add_argument("--all", action="store_true", help="lock every template in this directory that has a lock file")
    parser.add_argument("--update", action="store_true", help="ask the source again, build without layers, and lock the result")
    parser.add_argument("--check", "--dry-run", action="store_true", help="write nothing; end with 1 if a lock file would change")
    parser.add_argument("--no-build", action="store_true", help="fail instead of building an image that the catalog does not have")
    add_json(parser, "print the changes as a JSON array with an object for each lock file")


def run(args: argparse.Namespace, app: App) -> int:
    if args.update and args.no_build:
        raise UsageError("--update cannot be combined with --no-build", hint="leave out one of them", code="usage.conflicting-options")
    files = list(dict.fromkeys([*args.files, *(_with_locks(Path()) if args.all else [])]))
    if not files:
        wrong = "no template in this directory has a lock file" if args.all else "no template is named"
        raise UsageError(wrong, hint="bake lock TEMPLATE", code="usage.missing-argument")
    reports: list[dict[str, object]] = []
    codes = [_lock(file, args, app, reports) for file in files]
    if args.json:
        app.json(reports)
    return next((code for code in codes if code > 1), max(codes))


def _with_locks(directory: Path) -> list[str]:
    """The templates in a directory that have a lock file."""
    paths = (
        path.with_name(path.name.replace(".lock.yaml", ending)) for path in directory.glob("*.lock.yaml") for ending in (".yaml", ".yml")
    )
    return sorted(str(path) for path in paths if path.exists())


def _lock(file: str, args: argparse.Namespace, app: App, reports: list[dict[str, object]]) -> int:
    """Lock one template: print the changes, write the file, add an object to `reports`, and return the exit code."""
    from baker.lockfile.create import lock
    from baker.lockfile.write import write_lock

    with display(app, on_error_stream=args.json) as shown:
        baker = app.baker(shown)
        locked = lock(baker, _request(file, args), update=args.update, build=not args.no_build, say=app.note)
    if locked.lock is None:
        for result in locked.failed:
            report_failure(app, baker, result, json=False)
        return locked.failed[0].exit_code
    known = locked.path.exists()  # in a first lock file everything is new, so a list of changes would not help
    if not args.json and known and not app.quiet:
        rows = [(each.image, each.what, each.name, short(each.before), short(each.after)) for each in locked.changes]
        app.lines(app.table(("IMAGE", "WHAT", "NAME", "FROM", "TO"), rows) if rows else [])
    written = not args.check and write_lock(locked.path, locked.lock)
    reports.append({"lock": str(locked.path), "written": written, "changes": [asdict(change) for change in locked.changes]})
    if not args.json:
        app.line(f"{locked.path}: {'written' if written else 'would change' if args.check and locked.changes else 'unchanged'}")
    return 1 if args.check and locked.changes else 0


def _request(file: str, args: argparse.Namespace) -> BuildRequest:
    from baker.plan.requests import BuildOptions

    return request_of(args, file, BuildOptions(pull=args.update, no_cache=args.update))


def short(value: str) -> str:
    """The first 12 digits of a digest; other values unchanged, "-" for an empty one."""
    digits = value.removeprefix("sha256:")
    return digits[:12] if len(digits) == 64 and digits.isalnum() else value or "-"
