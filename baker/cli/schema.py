"""Print the JSON Schema of templates, with which editors complete and check templates."""

from __future__ import annotations

import argparse

from baker.cli.app import App

EXAMPLES = """
  bake schema > bake.schema.json

  and in the first line of a template:
  # yaml-language-server: $schema=./bake.schema.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="accepted for scripts; the schema is always JSON")


def run(args: argparse.Namespace, app: App) -> int:
    from baker.template.schema import json_schema

    app.json(json_schema())
    return 0
