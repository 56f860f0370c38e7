"""Report every problem of templates, each with its place and a correction. Starts nothing."""

from __future__ import annotations

import argparse
from typing import Any

from baker.cli.app import App
from baker.cli.options import add_json, add_template_options, variables
from baker.cli.runner import report
from baker.core.errors import BakeError, Problem, TemplateError

EXAMPLES = """
  bake validate web.yaml
  bake validate templates/*.yaml --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="a template file")
    add_template_options(parser)
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    code, results = 0, []
    values = variables(args.var)
    for file in args.files:
        result: dict[str, Any] = {"file": str(file), "valid": True, "images": [], "problems": []}
        try:
            result["images"] = images(file, values, args, app)
        except BakeError as error:
            code = code or error.exit_code
            result |= {"valid": False, "problems": problems(error, str(file))}
            if not args.json:
                report(error, app.err, debug=app.debug)
        else:
            if not args.json and not app.quiet:
                count = f" ({len(result['images'])} images)" if len(result["images"]) > 1 else ""
                app.line(f"{file}: {app.out.paint('valid', 'green')}{count}")
        results.append(result)
    if args.json:
        app.json(results)
    return code


def images(file: str, values: dict[str, str], args: argparse.Namespace, app: App) -> list[dict[str, str]]:
    """Name and version of each image that a valid template makes."""
    templates = app.baker().load(file, variables=values, var_files=args.var_file, only=args.only, except_=args.except_)
    return [{"name": template.name, "version": template.version} for template in templates]


def problems(error: BakeError, file: str) -> list[dict[str, Any]]:
    """The problems of a file as JSON objects."""
    each = error.problems if isinstance(error, TemplateError) else (Problem(file, 0, 0, error.message, error.hint, code=error.code),)
    return [problem.to_json() | {"snippet": problem.snippet} for problem in each]
