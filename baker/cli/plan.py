"""Say what a build would do: its source, its steps with their content keys, and whether the image is there already. Starts nothing."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from baker.cli.app import App
from baker.cli.options import add_json, add_template_options, listed, variables
from baker.render.text import fields, plural, short, size, table

if TYPE_CHECKING:
    from baker.catalog.records import ImageRecord
    from baker.plan import Plan
    from baker.template.model import Template

EXAMPLES = """
  bake plan web.yaml
  bake plan web.yaml --var site_title=Hello --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="a template")
    add_template_options(parser)
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    baker, values, found = app.baker(), variables(args.var), []
    for file in args.files:
        for template in baker.load(file, variables=values, var_files=args.var_file, only=listed(args.only), except_=listed(args.except_)):
            plan = baker.plan(template)
            found.append((template, plan, baker.planned_image(plan) if plan else None))
    if args.json:
        app.json([to_json(template, plan, image) for template, plan, image in found])
        return 0
    for number, (template, plan, image) in enumerate(found):
        app.lines([""] * bool(number) + lines(app, template, plan, image))
    return 0


def lines(app: App, template: Template, plan: Plan | None, image: ImageRecord | None) -> list[str]:
    """The plan of one image for a person."""
    paint, ellipsis = app.out.paint, app.out.glyphs.ellipsis
    spec = template.builder
    machine = f"{spec.kind}, {spec.cpus} cpus, {size(spec.memory)} memory, {spec.firmware}"
    source = f"{plan.source.title}  {short(plan.source.digest)}" if plan else f"{source_title(template)}, not on this host yet"
    head = [f"{paint(f'{template.name} {template.version}', 'bold')}  {template.path}"]
    head += fields([("source", source), ("machine", machine), ("fingerprint", plan.fingerprint if plan else "")])
    keys = {planned.index: short(planned.key) for planned in plan.steps} if plan else {}
    rows = [
        [str(index), step.name, step.kind, keys.get(index, "?"), "yes" if image else "no", step.bundle or step.origin]
        for index, step in enumerate(template.provisioners, start=1)
    ]
    body = table(["#", "STEP", "KIND", "KEY", "CACHED", "FROM"], rows, width=app.out.width, right={0}, ellipsis=ellipsis) if rows else []
    return [*head, *([""] if rows else []), *("  " + line for line in body), "", "  " + outcome(template, plan, image)]


def outcome(template: Template, plan: Plan | None, image: ImageRecord | None) -> str:
    """What `bake build` would do now, in a sentence."""
    if image is not None:
        verified = "verified" if image.verified else "not verified"
        return f"bake build would do nothing: image {image.id} ({verified}) has this fingerprint"
    work = [] if plan else ["get the source"]
    work.append(f"carry out {plural(len(template.provisioners), 'step')}" if template.provisioners else "take the source as it is")
    if template.verify:
        work.append(f"test the image ({plural(len(template.verify), 'suite')})")
    return "bake build would " + (", then ".join(work))


def source_title(template: Template) -> str:
    """The source as the template names it."""
    source: Any = template.source
    for name in ("image", "url", "path", "suite"):
        value = getattr(source, name, None)
        if value is not None:
            return f"{name} {value}"
    return type(source).__name__


def to_json(template: Template, plan: Plan | None, image: ImageRecord | None) -> dict[str, Any]:
    """The plan of one image for programs; keys and digests are null while the source is not on this host."""
    keys = {planned.index: planned for planned in plan.steps} if plan else {}
    return {
        "name": template.name,
        "version": template.version,
        "template": str(template.path),
        "source": {"kind": plan.source.kind, "title": plan.source.title, "digest": plan.source.digest, "parent": plan.source.parent}
        if plan
        else None,
        "steps": [
            {
                "index": index,
                "name": step.name,
                "kind": step.kind,
                "origin": step.origin,
                "bundle": step.bundle,
                "key": keys[index].key if index in keys else None,
                "files": dict(keys[index].files) if index in keys else {},
                "cached": image is not None,
            }
            for index, step in enumerate(template.provisioners, start=1)
        ],
        "fingerprint": plan.fingerprint if plan else None,
        "image": image.id if image else None,
    }
