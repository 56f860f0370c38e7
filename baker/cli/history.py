"""Show the lineage of an image as a tree, root first, each image with its steps and their durations. Without an image, show all images
below their parents."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from baker.catalog.records import BuildRecord, ImageRecord
from baker.cli.app import App
from baker.cli.options import add_json
from baker.core.host_facts import now
from baker.render.text import ago, clean, duration, when

if TYPE_CHECKING:
    from baker.api import Baker
    from baker.catalog.catalog import LineageNode

EXAMPLES = """
  bake history web
  bake history              show all images below their parents
  bake history web --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="name, name@version, name@^1.2, name@channel, id or digest")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    baker = app.baker()
    if args.image is None:
        return _all(args, app, baker)
    line = list(reversed(baker.catalog.history(baker.catalog.resolve(args.image))))
    builds = baker.catalog.builds_of(line)
    if args.json:
        app.json([{"image": asdict(i), "build": asdict(b) if b else None} for i, b in zip(line, builds, strict=True)])
        return 0
    app.lines(list(lineage(app, line, builds, baker.catalog.revocations.in_force(now()))))
    return 0


def lineage(app: App, images: Sequence[ImageRecord], builds: Sequence[BuildRecord | None], revoked: Collection[str] = ()) -> Iterator[str]:
    """The source of the root, then each image below its parent, with its steps."""
    glyphs, paint = app.out.glyphs, app.out.paint
    root = builds[0]
    source = str(root.source.get("title") or "") if root else ""
    if source:
        yield paint(clean(source), "dim")
    for depth, (image, build) in enumerate(zip(images, builds, strict=True), start=bool(source)):
        indent = "    " * max(depth - 1, 0)
        last = depth - bool(source) == len(images) - 1
        yield (indent + glyphs.corner if depth else "") + title(app, image, build, revoked)
        below = ("    " * depth) + ("    " if last else glyphs.pipe)
        for step in build.steps if build else ():
            note = f"{step.status}" if step.status not in ("done", "planned") else duration(step.seconds)
            yield below + paint(f"{step.index}. {clean(step.name)} ({step.kind}) {note}", "dim")


def title(app: App, image: ImageRecord, build: BuildRecord | None, revoked: Collection[str] = ()) -> str:
    """`web 1.4.0  1f2e3d4c5b6a  2 hours ago  built in 1m02s  verified`."""
    paint = app.out.paint
    parts = [paint(f"{image.name} {image.version}", "bold"), image.id, ago(image.created, app.now())]
    started, finished = (when(build.started), when(build.finished)) if build else (None, None)
    if started and finished:
        parts.append(f"built in {duration((finished - started).total_seconds())}")
    parts.append(paint("verified", "green") if image.verified else paint("not verified", "yellow"))
    if image.origin == "committed":
        parts.append(paint("committed from a shell, not reproducible", "yellow"))
    if image.id in revoked:
        parts.append(paint("revoked", "red"))
    if image.removed:
        parts.append(paint("removed", "yellow"))
    return "  ".join(parts)


def _all(args: argparse.Namespace, app: App, baker: Baker) -> int:
    roots = baker.catalog.tree()
    if args.json:
        app.json([_node(root) for root in roots])
        return 0
    if not roots:
        app.note("no images yet: `bake build TEMPLATE` builds one")
    revoked = baker.catalog.revocations.in_force(now())
    for root in roots:
        app.lines(list(_tree(app, root, "", "", revoked)))
    return 0


def _tree(app: App, node: LineageNode, first: str, rest: str, revoked: Collection[str]) -> Iterator[str]:
    glyphs = app.out.glyphs
    yield first + title(app, node.image, None, revoked)
    for number, child in enumerate(node.children, start=1):
        last = number == len(node.children)
        yield from _tree(app, child, rest + (glyphs.corner if last else glyphs.fork), rest + ("    " if last else glyphs.pipe), revoked)


def _node(node: LineageNode) -> dict[str, object]:
    return {"image": asdict(node.image), "children": [_node(child) for child in node.children]}
