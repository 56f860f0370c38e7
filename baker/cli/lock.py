"""Write down what a template's image is made of, in NAME.lock.yaml beside it: source, files, package indexes, packages, tools.
Commit it: `bake build --locked` fails when something is not as it says. Ends with 1 when --check finds that it would change."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from baker.cli.app import App
from baker.cli.build import tell
from baker.cli.display import display
from baker.cli.options import add_json, add_template_options, listed, variables
from baker.errors import UsageError

EXAMPLES = """
  bake lock web.yaml
  bake lock web.yaml --no-build
  bake lock --update web.yaml
  bake lock --update --check web.yaml || echo "there is something newer"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a template")
    add_template_options(parser)
    parser.add_argument("--update", action="store_true", help="build anew from a source that is asked again, and lock that")
    parser.add_argument("--check", "--dry-run", action="store_true", help="write nothing; end with 1 when the lock would change")
    parser.add_argument("--no-build", action="store_true", help="fail where the catalog has no image of the template as it is now")
    add_json(parser, "what changes, as JSON")


def run(args: argparse.Namespace, app: App) -> int:
    from baker.lockfile.write import write_lock
    from baker.locking import lock
    from baker.requests import BuildRequest

    if args.update and args.no_build:
        raise UsageError("--update builds, and --no-build forbids it", hint="leave out one of them")
    request = BuildRequest(
        path=args.file,
        variables=variables(args.var),
        var_files=tuple(Path(file) for file in args.var_file),
        only=listed(args.only),
        except_=listed(args.except_),
        pull=args.update,
        no_cache=args.update,
    )
    with display(app, on_error_stream=args.json) as shown:
        baker = app.baker(shown)
        locked = lock(baker, request, update=args.update, build=not args.no_build, say=app.note)
    if locked.lock is None:
        for result in locked.failed:
            tell(app, baker, result, json=False)
        return locked.failed[0].exit_code
    known = locked.path.exists()  # of a first lock everything is new
    written = not args.check and write_lock(locked.path, locked.lock)
    if args.json:
        app.json({"lock": str(locked.path), "written": written, "changes": [asdict(change) for change in locked.changes]})
    else:
        rows = [(each.image, each.what, each.name, _short(each.before), _short(each.after)) for each in locked.changes]
        app.lines(app.table(("IMAGE", "WHAT", "NAME", "FROM", "TO"), rows) if rows and known and not app.quiet else [])
        app.line(f"{locked.path}: {'written' if written else 'would change' if args.check and locked.changes else 'as it was'}")
    return 1 if args.check and locked.changes else 0


def _short(value: str) -> str:
    """A digest by its first digits."""
    digits = value.removeprefix("sha256:")
    return digits[:12] if len(digits) == 64 and digits.isalnum() else value or "-"
