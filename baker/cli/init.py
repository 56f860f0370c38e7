"""Write a first template with a page and tests, ready for `bake build`. Existing files are never overwritten."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from baker.cli.app import App
from baker.cli.options import add_json
from baker.core.disk_space import host_error
from baker.core.errors import UsageError

EXAMPLES = """
  bake init web                write a web server into the directory web
  bake init . --name proxy     write into this directory, with another name
"""
NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")

TEMPLATE = """\
# The template of `bake build {name}.yaml`. Every key is in docs/template-reference.md.
schema: 1
name: {name}
version: 0.1.0
description: A web server with a page of its own

variables:
  title:
    type: string
    default: Hello from {name}
    description: the title of the page          # bake build {name}.yaml --var title=Welcome

source:
  debootstrap:                                # a minimal Debian that boots by itself
    suite: trixie

builder:
  memory: 1GiB
  disk_size: 4GiB

provisioners:
  - name: packages
    shell:
      inline:
        - apt-get update
        - apt-get install -y --no-install-recommends nginx-light
    timeout: 15m
  - name: page
    file:
      template: files/index.html.j2
      destination: /var/www/html/index.html
      vars: {{title: "${{{{ var.title }}}}"}}

verify:
  - testinfra: tests/test_{module}.py
"""
PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{{ title }}</title>
<h1>{{ title }}</h1>
"""
TESTS = '''\
"""Tests of the finished image, booted with a new identity. https://testinfra.readthedocs.io documents `host`."""


def test_nginx_runs(host):
    assert host.service("nginx").is_running
    assert host.service("nginx").is_enabled


def test_the_page_is_ours(host):
    page = host.run("wget -qO- http://127.0.0.1/ || cat /var/www/html/index.html")
    assert "<h1>" in page.stdout
'''


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", nargs="?", type=Path, default=Path(), help="the directory to write to (default: the current one)")
    parser.add_argument("--name", help="the name of the image (default: the name of the directory)")
    add_json(parser, "print the written files as JSON")


def run(args: argparse.Namespace, app: App) -> int:
    directory: Path = args.directory
    name = args.name or directory.absolute().name.lower().replace("_", "-")
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a valid image name",
            hint="use lower-case letters, digits and hyphens: bake init --name my-image",
            code="usage.bad-name",
        )
    files = contents(name)
    existing = [path for path in files if (directory / path).exists()]
    if existing:
        raise UsageError(
            f"{directory / existing[0]} exists already, so nothing was written",
            hint="choose another directory or --name",
            code="output.exists",
        )
    write(directory, files)
    template = directory / f"{name}.yaml"
    if args.json:
        app.json({"name": name, "template": str(template), "files": [str(directory / path) for path in files]})
        return 0
    for path in files:
        app.line(f"wrote {directory / path}")
    app.note(f"\nnext: bake validate {template}\n      bake build {template}")
    return 0


def contents(name: str) -> dict[str, str]:
    """The files that `bake init` writes for an image called `name`: relative path -> text."""
    module = name.replace("-", "_")
    return {
        f"{name}.yaml": TEMPLATE.format(name=name, module=module),
        "files/index.html.j2": PAGE,
        f"tests/test_{module}.py": TESTS,
    }


def write(directory: Path, files: dict[str, str]) -> None:
    for relative, text in files.items():
        path = directory / relative
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise host_error(error, path) from error
