"""Write down what a template's image is made of, in NAME.lock.yaml beside it: source, files, package indexes, packages, tools.
Commit it: `bake build --locked` fails when something is not as it says. Ends with 1 when --check finds that it would change."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from baker.cli.app import App
from baker.cli.build import tell
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
  bake lock --update --check web.yaml || echo "there is something newer"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", metavar="FILE", help="a template; a lock has all images of its matrix")
    add_template_options(parser)
    parser.add_argument("--all", action="store_true", help="every template in this directory that has a lock beside it")
    parser.add_argument("--update", action="store_true", help="build anew from a source that is asked again, and lock that")
    parser.add_argument("--check", "--dry-run", action="store_true", help="write nothing; end with 1 when a lock would change")
    parser.add_argument("--no-build", action="store_true", help="fail where the catalog has no image of the template as it is now")
    add_json(parser, "what changes, as JSON: an array with an object for each lock")


def run(args: argparse.Namespace, app: App) -> int:
    if args.update and args.no_build:
        raise UsageError("--update builds, and --no-build forbids it", hint="leave out one of them")
    files = list(dict.fromkeys([*args.files, *(_with_locks(Path()) if args.all else [])]))
    if not files:
        wrong = "no template in this directory has a lock" if args.all else "no template is named"
        raise UsageError(wrong, hint="bake lock TEMPLATE writes one")
    told: list[dict[str, object]] = []
    codes = [_one(file, args, app, told) for file in files]
    if args.json:
        app.json(told)
    return next((code for code in codes if code > 1), max(codes))


def _with_locks(directory: Path) -> list[str]:
    """The templates that have a lock beside them."""
    found = (
        path.with_name(path.name.replace(".lock.yaml", ending)) for path in directory.glob("*.lock.yaml") for ending in (".yaml", ".yml")
    )
    return sorted(str(path) for path in found if path.exists())


def _one(file: str, args: argparse.Namespace, app: App, told: list[dict[str, object]]) -> int:
    """One lock: what it changes is shown before it is written."""
    from baker.lockfile.create import lock
    from baker.lockfile.write import write_lock

    with display(app, on_error_stream=args.json) as shown:
        baker = app.baker(shown)
        locked = lock(baker, _request(file, args), update=args.update, build=not args.no_build, say=app.note)
    if locked.lock is None:
        for result in locked.failed:
            tell(app, baker, result, json=False)
        return locked.failed[0].exit_code
    known = locked.path.exists()  # of a first lock everything is new
    if not args.json and known and not app.quiet:
        rows = [(each.image, each.what, each.name, short(each.before), short(each.after)) for each in locked.changes]
        app.lines(app.table(("IMAGE", "WHAT", "NAME", "FROM", "TO"), rows) if rows else [])
    written = not args.check and write_lock(locked.path, locked.lock)
    told.append({"lock": str(locked.path), "written": written, "changes": [asdict(change) for change in locked.changes]})
    if not args.json:
        app.line(f"{locked.path}: {'written' if written else 'would change' if args.check and locked.changes else 'as it was'}")
    return 1 if args.check and locked.changes else 0


def _request(file: str, args: argparse.Namespace) -> BuildRequest:
    from baker.plan.requests import BuildOptions

    return request_of(args, file, BuildOptions(pull=args.update, no_cache=args.update))


def short(value: str) -> str:
    """A digest by its first digits."""
    digits = value.removeprefix("sha256:")
    return digits[:12] if len(digits) == 64 and digits.isalnum() else value or "-"
