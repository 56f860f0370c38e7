"""Print the log of a build, also of a failed one. Without a name, list the latest builds."""

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
  bake logs                    list the latest builds
  bake logs 3f2a1c9b           print the log of a build
  bake logs web                print the log of the build of an image
  bake logs web --console      print the serial consoles of its machines
  bake logs web --junit > report.xml
"""
LATEST = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("build", nargs="?", metavar="BUILD|IMAGE", help="the id of a build (or its beginning), or an image")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--console", action="store_true", help="print the serial consoles of its machines")
    what.add_argument("--junit", action="store_true", help="print the test report as JUnit XML")
    parser.add_argument("-n", "--limit", type=positive, default=LATEST, metavar="N", help=f"number of builds to list (default: {LATEST})")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    baker = app.baker()
    if args.build is None:
        if args.console or args.junit:
            hint = "bake logs BUILD|IMAGE; `bake logs` lists the latest builds"
            raise UsageError("--console and --junit need a build or an image", hint=hint, code="usage.missing-argument")
        return latest(args, app, baker.catalog.builds(limit=args.limit))
    build = find(baker, args.build)
    names = ["junit"] if args.junit else sorted(n for n in build.evidence if n.endswith("console")) if args.console else ["log"]
    logs = {name: build.evidence[name] for name in names if name in build.evidence}
    if args.json:
        app.json({"build": build.id, "status": build.status, "logs": {name: _text(baker, digest) for name, digest in logs.items()}})
        return 0
    if not logs:
        kind = "test report" if args.junit else "serial console" if args.console else "log"
        raise NotFoundError(f"build {build.id} ({build.template_name}, {build.status}) has no {kind}", code="build.no-log")
    for name, digest in logs.items():
        if len(logs) > 1:
            app.line(app.out.paint(f"== {name} ==", "bold"))
        print_blob(app, baker, digest, raw=args.junit)
    return 0


def find(baker: Baker, reference: str) -> BuildRecord:
    """The build with this id, or of this image, or the last failed build of a template with this name."""
    try:
        return baker.catalog.build(reference)
    except NotFoundError:
        pass
    try:
        return baker.catalog.build_of(baker.catalog.resolve(reference))
    except NotFoundError:
        failed = baker.catalog.builds(reference, limit=1)  # a template without an image
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
    """Print a text blob line by line. Control characters that would move the cursor are removed, unless `raw` is set."""
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
