"""Build a template and run its tests without registering an image. With --idempotent, run its steps twice on one machine and list what the
second run changed."""

from __future__ import annotations

import argparse

from baker.cli.app import App
from baker.cli.display import display
from baker.cli.options import add_json, add_template_options, request_of
from baker.core.errors import UsageError, VerifyError
from baker.render.text import clean, plural

EXAMPLES = """
  bake test web.yaml
  bake test web.yaml --idempotent
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("template", metavar="TEMPLATE", help="a template of one image (or choose one with --only)")
    parser.add_argument("--idempotent", action="store_true", help="run the steps twice; fail if the second run changes files")
    parser.add_argument("--no-cache", action="store_true", help="build from the source, without layers")
    add_template_options(parser)
    add_json(parser, "with --idempotent: print what the second run changed as JSON")


def run(args: argparse.Namespace, app: App) -> int:
    from baker.plan.requests import BuildOptions

    if args.json and not args.idempotent:
        raise UsageError(
            "--json needs --idempotent: a test without it has nothing to list", hint="use the exit code", code="usage.needs-option"
        )
    request = request_of(args, args.template, BuildOptions(no_cache=args.no_cache, force=True))
    with display(app, on_error_stream=args.json) as shown:
        changes = app.baker(shown).test(request, idempotent=args.idempotent)
    if args.json:
        app.json([{"path": each.path, "step": each.step, "name": each.name, "what": list(each.what)} for each in changes])
    elif changes:
        app.line(f"the second run changed {plural(len(changes), 'path')}:")
        app.lines([f"  step {each.step} {clean(each.name)}: {clean(each.path)} ({', '.join(each.what)})" for each in changes])
    elif args.idempotent:
        app.line("the second run changed nothing")
    return VerifyError.exit_code if changes else 0
