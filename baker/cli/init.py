"""Write a first template with a page and a test, ready for `bake build`. Files that exist are never overwritten."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from baker.cli.app import App
from baker.cli.options import add_json
from baker.core.errors import HostError, UsageError

EXAMPLES = """
  bake init web                a web server in the directory web
  bake init . --name proxy     in this directory, with another name
"""
NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")

TEMPLATE = """\
# What `bake build {name}.yaml` makes. The docs have every key: docs/template-reference.md.
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
"""Run against the finished image, booted as a stranger would: https://testinfra.readthedocs.io has what `host` can tell."""


def test_nginx_runs(host):
    assert host.service("nginx").is_running
    assert host.service("nginx").is_enabled


def test_the_page_is_ours(host):
    page = host.run("wget -qO- http://127.0.0.1/ || cat /var/www/html/index.html")
    assert "<h1>" in page.stdout
'''


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", nargs="?", type=Path, default=Path(), help="where to write (default: here)")
    parser.add_argument("--name", help="the image's name (default: the directory's)")
    add_json(parser, "what was written, as JSON")


def run(args: argparse.Namespace, app: App) -> int:
    directory: Path = args.directory
    name = args.name or directory.absolute().name.lower().replace("_", "-")
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for an image", hint="lower-case letters, digits and hyphens: bake init --name my-image")
    files = contents(name)
    taken = [path for path in files if (directory / path).exists()]
    if taken:
        raise UsageError(f"{directory / taken[0]} exists already, so nothing was written", hint="choose another directory or --name")
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
    """Relative path -> text of everything that `bake init` writes for an image called `name`."""
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
            raise HostError(f"cannot write {path}: {error.strerror}") from error
