"""Which step of which build put a file or a package into an image, asked of the whole line that it is made on."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from baker.cli.app import App
from baker.cli.options import add_json
from baker.core.errors import UsageError
from baker.render.text import clean, fields

if TYPE_CHECKING:
    from baker.catalog.records import BuildRecord, ImageRecord, StepRecord
    from baker.explain.why import PackageReason, Reason

EXAMPLES = """
  bake why web /etc/nginx/nginx.conf
  bake why web --package openssl
  bake why web /etc/motd --json
"""
COLUMN = 10  # cells of the names at the left


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="name, name@version, name@^1.2, id or digest")
    parser.add_argument("path", nargs="?", metavar="PATH", help="an absolute path in the image")
    parser.add_argument("--package", metavar="NAME", help="a package instead of a path")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    if (args.path is None) == (args.package is None):
        raise UsageError("one of PATH and --package is needed", hint="bake why web /etc/hosts, or bake why web --package openssl")
    baker = app.baker()
    found = baker.why(args.image, args.path) if args.path else baker.why_package(args.image, args.package)
    if args.json:
        app.json(_json(found))
        return 0
    from baker.explain.why import Reason

    app.lines(list(_path(app, found) if isinstance(found, Reason) else _package(app, found)))
    return 0


def _path(app: App, found: Reason) -> Iterator[str]:
    yield app.out.paint(clean(found.path), "bold")
    shown = [(found.change, _cause(found))]
    shown += _where(found.image, found.build, found.step)
    if found.entry:
        entry = found.entry
        content = f"sha256 {entry.sha256}" if entry.sha256 else f"-> {clean(entry.target)}" if entry.target else ""
        shown.append(
            ("was" if found.change == "removed" else "is", f"{entry.mode & 0o7777:04o} {entry.uid}:{entry.gid}  {content}".rstrip())
        )
    shown.append(("inputs", "\n".join(f"{clean(name)}  {digest}" for name, digest in found.inputs)))
    shown.append(("before", "\n".join(f"{change} in {image.name}@{image.version}{_by(step)}" for image, change, step in found.earlier)))
    yield from fields(shown, width=COLUMN)


def _cause(found: Reason) -> str:
    if found.source:
        return f"by no step: it came with the source, {clean(str(found.build.source.get('title') or '?'))}"
    if found.step:
        by = "by" if found.change == "removed" else "last touched by"
        return f"{by} step {found.step.index}, {clean(found.step.name)} ({found.step.kind})"
    if not found.known:
        return "which step it was is not on record: that build noted no changes"
    if found.image.origin == "committed":
        return "by hand: this image was committed from a shell"
    return "by no step: a boot, the sealing, or a rule of reproducibility"


def _by(step: StepRecord | None) -> str:
    return f" by step {step.index}, {clean(step.name)} ({step.origin})" if step else " by no step"


def _where(image: ImageRecord, build: BuildRecord, step: StepRecord | None) -> list[tuple[str, str]]:
    return [
        ("template", f"{build.template_path}" + (f", at {step.origin}" if step else "")),
        ("image", f"{image.name}@{image.version} ({image.id})"),
        ("build", f"{build.id}, {build.finished} by {clean(build.who)}"),
        ("commit", build.git_commit + (" with uncommitted changes" if build.git_dirty else "") if build.git_commit else ""),
    ]


def _package(app: App, found: PackageReason) -> Iterator[str]:
    package = found.package
    yield app.out.paint(f"{package.name} {package.version}", "bold") + (f" ({package.architecture})" if package.architecture else "")
    if found.step:
        cause = f"by step {found.step.index}, {clean(found.step.name)} ({found.step.kind})"
    else:
        cause = "with the source" if found.source else "by a step that is not on record"
    shown = [("upgraded" if found.before else "added", cause), ("from", found.before)]
    shown += _where(found.image, found.build, found.step)
    if found.fetched:
        shown += [("fetched", clean(found.fetched.url)), ("digest", found.fetched.digest)]
    yield from fields(shown, width=COLUMN)


def _json(found: Reason | PackageReason) -> dict[str, Any]:
    value = asdict(found)
    value["build"] = {name: value["build"][name] for name in ("id", "template_path", "template_digest", "git_commit", "finished", "who")}
    value["image"] = {name: value["image"][name] for name in ("id", "name", "version", "digest", "origin")}
    if "earlier" in value:
        value["earlier"] = [
            {"image": image.id, "name": image.name, "version": image.version, "change": change, "step": asdict(step) if step else None}
            for image, change, step in found.earlier  # type: ignore[union-attr]
        ]
        value["inputs"] = dict(value["inputs"])
    return value
