"""Make an image of the disk of a running `bake shell`; the shell goes on. Such an image cannot be rebuilt: it is marked as committed
wherever it is shown, and the manual changes are kept as evidence."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from baker.cli.app import App
from baker.cli.display import display
from baker.cli.options import add_json
from baker.core.errors import UsageError

if TYPE_CHECKING:
    from baker.catalog.records import ImageRecord
    from baker.sessions.commit import CommitOptions

EXAMPLES = """
  bake commit 5f1c22aa90b7 --name web --version 1.0.1 -m "a hotfix, until the template has it"
  bake shell web --commit web@1.0.1        make the image on leaving the shell
"""
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", metavar="SHELL", help="the id that `bake shell` prints at its start")
    parser.add_argument("--name", required=True, metavar="NAME", help="the name of the image")
    parser.add_argument("--version", required=True, dest="image_version", metavar="VERSION", help="the version of the image, such as 1.0.1")
    parser.add_argument("-m", "--message", default="", metavar="TEXT", help="the reason, kept on record")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    options = options_of(f"{args.name}@{args.image_version}", args.message)
    with display(app, on_error_stream=True) as shown:
        baker = app.baker(shown)
        with baker.take(args.shell) as source:
            image = baker.commit(source, options)
    show(app, image, json=args.json)
    return 0


def options_of(text: str, message: str) -> CommitOptions:
    """The options of a commit as NAME@VERSION. UsageError for any other text."""
    from semantic_version import Version

    from baker.sessions.commit import CommitOptions

    name, _, version = text.partition("@")
    try:
        Version(version)
    except ValueError as error:
        hint = "use NAME@VERSION with three numbers: web@1.0.1"
        raise UsageError(f"{text!r} has no valid version", hint=hint, code="usage.bad-version") from error
    if not NAME.fullmatch(name):
        hint = "use lower-case letters, digits, dots, underscores and hyphens: web@1.0.1"
        raise UsageError(f"{name!r} is not a valid image name", hint=hint, code="usage.bad-name")
    return CommitOptions(name, version, message)


def show(app: App, image: ImageRecord, *, json: bool) -> None:
    if json:
        app.json({"id": image.id, "name": image.name, "version": image.version, "digest": image.digest, "origin": image.origin})
    elif app.quiet:
        app.line(image.id)
    else:
        app.line(f"committed {image.name} {image.version} ({image.id}, {image.digest}): not reproducible, not verified")
