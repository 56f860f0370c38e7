"""Say everything that is wrong with templates, each problem with its place and what would be right. Starts nothing."""

from __future__ import annotations

import argparse
from typing import Any

from baker.cli.app import App
from baker.cli.options import add_json, add_template_options, variables
from baker.cli.runner import report
from baker.cli.validation_cache import Verdicts
from baker.core.errors import BakeError, TemplateError

EXAMPLES = """
  bake validate web.yaml
  bake validate templates/*.yaml --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="a template")
    add_template_options(parser)
    parser.add_argument("--no-cache", action="store_true", help="look at everything again, although nothing has changed since it was valid")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    code, results = 0, []
    values, verdicts = variables(args.var), Verdicts(app.home, app.env)
    for file in args.files:
        found: dict[str, Any] = {"file": str(file), "valid": True, "images": [], "problems": []}
        try:
            found["images"] = images(file, values, verdicts, args, app)
        except BakeError as error:
            code = code or error.exit_code
            found |= {"valid": False, "problems": problems(error, str(file))}
            if not args.json:
                report(error, app.err, debug=app.debug)
        else:
            if not args.json and not app.quiet:
                count = f" ({len(found['images'])} images)" if len(found["images"]) > 1 else ""
                app.line(f"{file}: {app.out.paint('valid', 'green')}{count}")
        results.append(found)
    if args.json:
        app.json(results)
    return code


def images(file: str, values: dict[str, str], verdicts: Verdicts, args: argparse.Namespace, app: App) -> list[dict[str, str]]:
    """Name and version of each image that a valid template makes, from memory where nothing has changed."""
    question = (file, values, args.var_file, args.only, args.except_)
    known = None if args.no_cache else verdicts.find(question)
    if known is not None:
        return known
    templates = app.baker().load(file, variables=values, var_files=args.var_file, only=args.only, except_=args.except_)
    found = [{"name": template.name, "version": template.version} for template in templates]
    verdicts.keep(question, templates[0].observed, found)
    return found


def problems(error: BakeError, file: str) -> list[dict[str, Any]]:
    """The problems of a file as JSON objects."""
    if isinstance(error, TemplateError):
        return [
            {"file": p.file, "line": p.line, "column": p.column, "code": p.code, "message": p.message, "hint": p.hint, "snippet": p.snippet}
            for p in error.problems
        ]
    return [{"file": file, "line": 0, "column": 0, "code": error.code, "message": error.message, "hint": error.hint, "snippet": ""}]
