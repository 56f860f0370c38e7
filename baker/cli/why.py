"""Find the step of the build that put a file or package into an image, across its whole lineage."""

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
COLUMN = 10  # width of the column of names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="name, name@version, name@^1.2, name@channel, id or digest")
    parser.add_argument("path", nargs="?", metavar="PATH", help="an absolute path in the image")
    parser.add_argument("--package", metavar="NAME", help="find the step that installed a package")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    if (args.path is None) == (args.package is None):
        hint = "bake why web /etc/hosts, or bake why web --package openssl"
        raise UsageError("exactly one of PATH and --package is needed", hint=hint, code="usage.one-of")
    baker = app.baker()
    answer = baker.why(args.image, args.path) if args.path else baker.why_package(args.image, args.package)
    if args.json:
        app.json(_json(answer))
        return 0
    from baker.explain.why import Reason

    app.lines(list(_path(app, answer) if isinstance(answer, Reason) else _package(app, answer)))
    return 0


def _path(app: App, reason: Reason) -> Iterator[str]:
    yield app.out.paint(clean(reason.path), "bold")
    shown = [(reason.change, _cause(reason))]
    shown += _where(reason.image, reason.build, reason.step)
    if reason.entry:
        entry = reason.entry
        content = f"sha256 {entry.sha256}" if entry.sha256 else f"-> {clean(entry.target)}" if entry.target else ""
        shown.append(
            ("was" if reason.change == "removed" else "is", f"{entry.mode & 0o7777:04o} {entry.uid}:{entry.gid}  {content}".rstrip())
        )
    shown.append(("inputs", "\n".join(f"{clean(name)}  {digest}" for name, digest in reason.inputs)))
    shown.append(("before", "\n".join(f"{change} in {image.name}@{image.version}{_by(step)}" for image, change, step in reason.earlier)))
    yield from fields(shown, width=COLUMN)


def _cause(reason: Reason) -> str:
    if reason.source:
        return f"not by a step: it came with the source, {clean(str(reason.build.source.get('title') or '?'))}"
    if reason.step:
        by = "by" if reason.change == "removed" else "last touched by"
        return f"{by} step {reason.step.index}, {clean(reason.step.name)} ({reason.step.kind})"
    if not reason.known:
        return "not known: that build did not record the changes of its steps"
    if reason.image.origin == "committed":
        return "manually: this image was committed from a shell"
    return "not by a step: by a boot, by sealing, or by a rule of reproducibility"


def _by(step: StepRecord | None) -> str:
    return f" by step {step.index}, {clean(step.name)} ({step.origin})" if step else " not by a step"


def _where(image: ImageRecord, build: BuildRecord, step: StepRecord | None) -> list[tuple[str, str]]:
    return [
        ("template", f"{build.template_path}" + (f", at {step.origin}" if step else "")),
        ("image", f"{image.name}@{image.version} ({image.id})"),
        ("build", f"{build.id}, {build.finished} by {clean(build.who)}"),
        ("commit", build.git_commit + (" with uncommitted changes" if build.git_dirty else "") if build.git_commit else ""),
    ]


def _package(app: App, reason: PackageReason) -> Iterator[str]:
    package = reason.package
    yield app.out.paint(f"{package.name} {package.version}", "bold") + (f" ({package.architecture})" if package.architecture else "")
    if reason.step:
        cause = f"by step {reason.step.index}, {clean(reason.step.name)} ({reason.step.kind})"
    else:
        cause = "with the source" if reason.source else "by a step that is not on record"
    shown = [("upgraded" if reason.before else "added", cause), ("from", reason.before)]
    shown += _where(reason.image, reason.build, reason.step)
    if reason.fetched:
        shown += [("fetched", clean(reason.fetched.url)), ("digest", reason.fetched.digest)]
    yield from fields(shown, width=COLUMN)


def _json(reason: Reason | PackageReason) -> dict[str, Any]:
    value = asdict(reason)
    value["build"] = {name: value["build"][name] for name in ("id", "template_path", "template_digest", "git_commit", "finished", "who")}
    value["image"] = {name: value["image"][name] for name in ("id", "name", "version", "digest", "origin")}
    if "earlier" in value:
        value["earlier"] = [
            {"image": image.id, "name": image.name, "version": image.version, "change": change, "step": asdict(step) if step else None}
            for image, change, step in reason.earlier  # type: ignore[union-attr]
        ]
        value["inputs"] = dict(value["inputs"])
    return value
