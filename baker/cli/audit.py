"""Show on one page how an image was built, from which inputs, and where it was used, and check everything again now."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from baker.cli.app import App
from baker.cli.history import lineage
from baker.cli.options import add_json
from baker.cli.show import host_fields, source_fields, test_lines, variable_lines
from baker.core.errors import VerifyError
from baker.rebuild.levels import Level
from baker.render.text import clean, duration, fields, plural, size
from baker.trust.audit.story import StepStory, Story, to_json

if TYPE_CHECKING:
    from baker.artifacts.changes import Change

EXAMPLES = """
  bake audit web
  bake audit web@1.4.0 --html web.html
  bake audit web --json | jq .verdict
"""
COLUMN = 12  # cells of the names at the left
FIRST = 5  # paths shown of each step
SIGNS = {"added": "+", "changed": "~", "removed": "-"}
CHECK_FAILED = VerifyError.exit_code


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="name, name@version, name@^1.2, name@channel, id or digest")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write it as one HTML page")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    story = app.baker().audit(args.image)
    if args.html:
        _write(story, args.html)
        app.note(f"wrote {args.html}")
    if args.json:
        app.json(to_json(story))
    elif args.html:
        app.lines(list(verdict_lines(app, story)))
    else:
        app.lines(list(lines(app, story)))
    return CHECK_FAILED if story.failed else 0


def _write(story: Story, path: Path) -> None:
    from baker.core.disk_space import host_error
    from baker.trust.audit.html import page

    try:
        path.write_text(page(story), encoding="utf-8")
    except OSError as error:
        raise host_error(error, path) from error


def lines(app: App, story: Story) -> Iterator[str]:
    """The whole audit as text."""
    image, build, paint = story.image, story.build, app.out.paint
    yield paint(f"{image.name} {image.version}", "bold") + (f"  {clean(image.description)}" if image.description else "")
    yield from fields(_image_fields(story), width=COLUMN)
    yield from ("", paint("lineage", "bold"))
    line = list(reversed(story.line))
    revoked = {each.image.id for each in line if each.revoked}
    yield from ("  " + text for text in lineage(app, [each.image for each in line], [each.build for each in line], revoked))
    sections: list[tuple[str, list[str]]] = []
    if build:
        sections = [
            ("built from", fields(source_fields(build), width=COLUMN)),
            ("variables", variable_lines(app, build)),
            ("built on", fields(host_fields(build), width=COLUMN)),
        ]
    sections += [
        ("inputs", _input_lines(app, story)),
        ("steps", [text for step in story.steps for text in _step_lines(app, step, story.changes_known)]),
        ("fetched", _fetch_lines(app, story)),
        ("tests", test_lines(app, build) if build else []),
        ("used in", _where_lines(app, story)),
        ("proofs", _proof_lines(app, story)),
        ("cannot be read", [f"  {paint(clean(text), 'red')}" for text in story.missing]),
    ]
    for title, body in sections:
        if body:
            yield from ("", paint(title, "bold"), *body)
    yield ""
    yield from verdict_lines(app, story)


def verdict_lines(app: App, story: Story) -> Iterator[str]:
    """Every check, then the verdict."""
    paint, glyphs = app.out.paint, app.out.glyphs
    yield paint(f"checked now, {story.at}", "bold")
    marks = {"ok": paint(glyphs.ok, "green"), "failed": paint(glyphs.bad, "red"), "unknown": paint(glyphs.skip, "yellow")}
    for check in story.checks:
        yield f"  {marks[check.status]} {clean(check.name)}: {clean(check.detail)}"
    yield ""
    yield paint("something is wrong: " if story.failed else "in order: ", "red" if story.failed else "green") + clean(story.verdict)


def _image_fields(story: Story) -> list[tuple[str, str]]:
    image = story.image
    return [
        ("id", image.id),
        ("digest", image.digest),
        ("fingerprint", image.fingerprint),
        ("created", image.created),
        ("size", f"{size(image.size)}{' on top of its parent' if image.parent else ''}, disk of {size(image.virtual_size)}"),
        ("origin", "committed from a shell: cannot be rebuilt" if image.origin == "committed" else ""),
        ("labels", ", ".join(f"{name}={value}" for name, value in image.labels.items())),
        ("build", image.build + ("" if story.build else " (not on record)")),
    ]


def _input_lines(app: App, story: Story) -> list[str]:
    rows = [[each.kind, each.name, each.digest] for each in story.inputs if each.kind in ("template", "source", "file")]
    return app.table(["KIND", "WHAT", "DIGEST"], rows, indent="  ", style="dim") if rows else []


def _step_lines(app: App, story: StepStory, known: bool) -> Iterator[str]:
    paint, step = app.out.paint, story.step
    if step:
        note = duration(step.seconds) if step.status == "done" else step.status
        yield f"  {step.index}. {clean(step.name)} ({step.kind}) {note}  {paint(clean(step.bundle or step.origin), 'dim')}"
    else:
        yield "  sealing, and other changes outside of steps"
    if known:
        counts = [f"{story.count(kind)} {kind}" for kind in SIGNS if story.count(kind)]
        yield paint(f"     files: {', '.join(counts) or 'none'}", "dim")
    for change in story.changes[:FIRST]:
        yield _change_line(app, change)
    if len(story.changes) > FIRST:
        yield paint(f"       and {len(story.changes) - FIRST} more", "dim")


def _change_line(app: App, change: Change) -> str:
    return app.out.paint(f"       {SIGNS[change.change]} {clean(change.path)}", "dim")


def _fetch_lines(app: App, story: Story) -> list[str]:
    if not story.fetches:
        return []
    hosts: dict[str, list[int]] = {}
    for each in story.fetches:
        hosts.setdefault("/".join(each.url.split("/", 3)[:3]), []).append(each.size)
    rows = [[place, str(len(sizes)), size(sum(sizes))] for place, sizes in sorted(hosts.items())]
    unkept = sum(not each.digest and bool(each.why) for each in story.fetches)
    lines = app.table(["FROM", "RESPONSES", "SIZE"], rows, right={1, 2}, indent="  ", style="dim")
    return lines + ([f"  the bodies of {plural(unkept, 'response')} were not kept"] if unkept else [])


def _where_lines(app: App, story: Story) -> list[str]:
    rows = [["channel", f"{each.name}@{each.channel}", each.changed, f"by {each.who}"] for each in story.channels]
    for event in story.channel_events:
        if event.before == story.image.id:
            rows.append(["left channel", f"{event.name}@{event.channel}", event.at, f"by {event.who}"])
    for one in story.publications:
        rows.append([one.kind, f"{one.reference} {one.region}", one.created, f"removed {one.removed}" if one.removed else ""])
    rows += [[f"release {each.title}", each.target, each.started, f"{each.status}, by {each.who}"] for each in story.releases]
    return app.table(["WHAT", "WHERE", "SINCE", "STATE"], rows, indent="  ", style="dim") if rows else []


def _proof_lines(app: App, story: Story) -> list[str]:
    rows = [[f"signed {each.predicate}", each.at, each.who, f"key {each.keyid[:16]}"] for each in story.attestations]
    for rebuild in story.rebuilds:
        level = Level(rebuild.level)
        rows.append(["rebuilt", rebuild.at, rebuild.who, f"{level.title}, {level.words}"])
    for past in story.revocations:
        undone = f", undone {past.undone}" if past.undone else ""
        rows.append(
            ["revoked", past.revocation.effective, past.revocation.who, f"{past.revocation.image}: {past.revocation.reason}{undone}"]
        )
    return app.table(["WHAT", "WHEN", "BY", "WHICH"], rows, indent="  ", style="dim") if rows else []
