"""What a build printed, failed ones too. Without a name: the latest builds."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from baker.artifacts import codecs
from baker.catalog.records import BuildRecord
from baker.cli.app import App
from baker.cli.options import add_json, positive
from baker.core.errors import NotFoundError, UsageError
from baker.render.text import ago, clean, duration, when

if TYPE_CHECKING:
    from baker.api import Baker

EXAMPLES = """
  bake logs                    the latest builds
  bake logs 3f2a1c9b           of a build
  bake logs web                of the build that made an image
  bake logs web --console      what its machine wrote to the serial console
  bake logs web --junit > report.xml
"""
LATEST = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("build", nargs="?", metavar="BUILD|IMAGE", help="a build's id (or its beginning), or an image")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--console", action="store_true", help="the serial consoles of its machines")
    what.add_argument("--junit", action="store_true", help="the test report as JUnit XML")
    parser.add_argument("-n", "--limit", type=positive, default=LATEST, metavar="N", help=f"how many builds to list (default: {LATEST})")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    baker = app.baker()
    if args.build is None:
        if args.console or args.junit:
            raise UsageError("whose log?", hint="bake logs BUILD|IMAGE; `bake logs` lists the latest builds")
        return latest(args, app, baker.catalog.builds(limit=args.limit))
    build = find(baker, args.build)
    names = ["junit"] if args.junit else sorted(n for n in build.evidence if n.endswith("console")) if args.console else ["log"]
    found = {name: build.evidence[name] for name in names if name in build.evidence}
    if args.json:
        app.json({"build": build.id, "status": build.status, "logs": {name: _text(baker, digest) for name, digest in found.items()}})
        return 0
    if not found:
        raise NotFoundError(f"build {build.id} ({build.template_name}, {build.status}) has no such log")
    for name, digest in found.items():
        if len(found) > 1:
            app.line(app.out.paint(f"== {name} ==", "bold"))
        print_blob(app, baker, digest, raw=args.junit)
    return 0


def find(baker: Baker, reference: str) -> BuildRecord:
    """The build with this id or of this image."""
    try:
        return baker.catalog.build(reference)
    except NotFoundError:
        pass
    try:
        return baker.catalog.build_of(baker.catalog.resolve(reference))
    except NotFoundError:
        failed = baker.catalog.builds(reference, limit=1)  # a template that never made an image
        if not failed:
            raise
        return failed[0]


def latest(args: argparse.Namespace, app: App, builds: list[BuildRecord]) -> int:
    if args.json:
        app.json([asdict(build) for build in builds])
        return 0
    if app.quiet:
        app.lines([build.id for build in builds])
        return 0
    if not builds:
        app.note("no builds yet")
        return 0
    rows = [
        [build.id, build.template_name, build.template_version, build.status, ago(build.started, app.now()), _took(build), _why(build)]
        for build in builds
    ]
    headers = ["BUILD", "NAME", "VERSION", "STATUS", "STARTED", "TOOK", "ERROR"]
    app.lines(app.table(headers, rows, right={5}))
    return 0


def print_blob(app: App, baker: Baker, digest: str, *, raw: bool = False) -> None:
    """A text blob line by line; what would move a terminal's cursor is taken out unless it goes to a file."""
    with baker.store.open(digest) as blob:
        for line in codecs.read_lines(blob):
            app.out.stream.write((line if raw else clean(line)) + "\n")


def _text(baker: Baker, digest: str) -> str:
    with baker.store.open(digest) as blob:
        return codecs.read_text(blob)


def _took(build: BuildRecord) -> str:
    started, finished = when(build.started), when(build.finished)
    return duration((finished - started).total_seconds()) if started and finished else ""


def _why(build: BuildRecord) -> str:
    return build.error.splitlines()[0] if build.error else ""
