"""Make an image of a running `bake shell` as it is on its disk now; the shell goes on. Nobody can make such an image again: it is marked as
committed wherever it is shown, with what was changed by hand as evidence."""

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
  bake shell web --commit web@1.0.1        the same on leaving the shell
"""
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", metavar="SHELL", help="its id: what `bake shell` says when it starts")
    parser.add_argument("--name", required=True, metavar="NAME", help="of the image")
    parser.add_argument("--version", required=True, dest="image_version", metavar="VERSION", help="of the image, such as 1.0.1")
    parser.add_argument("-m", "--message", default="", metavar="TEXT", help="why: it is on record")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    wish = wish_of(f"{args.name}@{args.image_version}", args.message)
    with display(app, on_error_stream=True) as shown:
        baker = app.baker(shown)
        with baker.take(args.shell) as taken:
            image = baker.commit(taken, wish)
    show(app, image, json=args.json)
    return 0


def wish_of(text: str, message: str) -> CommitOptions:
    """What NAME@VERSION asks for. UsageError for anything else."""
    from semantic_version import Version

    from baker.sessions.commit import CommitOptions

    name, _, version = text.partition("@")
    try:
        Version(version)
    except ValueError as error:
        raise UsageError(f"{text!r} has no version", hint="NAME@VERSION with three numbers: web@1.0.1") from error
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name of an image", hint="small letters, digits, dots and dashes: web@1.0.1")
    return CommitOptions(name, version, message)


def show(app: App, image: ImageRecord, *, json: bool) -> None:
    if json:
        app.json({"id": image.id, "name": image.name, "version": image.version, "digest": image.digest, "origin": image.origin})
    elif app.quiet:
        app.line(image.id)
    else:
        app.line(f"committed {image.name} {image.version} ({image.id}, {image.digest}): not reproducible, not verified")
