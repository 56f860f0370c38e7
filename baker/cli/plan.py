"""Show what a build would do: its source, its steps with their content keys, and whether the image exists already. Starts nothing."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from baker.cli.app import App
from baker.cli.options import add_json, add_template_options, request_of
from baker.render.text import fields, plural, short

if TYPE_CHECKING:
    from baker.catalog.records import ImageRecord
    from baker.layers.explain import Explained
    from baker.plan.plan import Plan
    from baker.template.model import Template

EXAMPLES = """
  bake plan web.yaml
  bake plan web.yaml --var site_title=Hello --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="a template file")
    add_template_options(parser)
    parser.add_argument("--from", dest="from_", metavar="STEP", help="show the plan of `bake build --from STEP`")
    parser.add_argument("--no-cache", action="store_true", help="show the plan of `bake build --no-cache`")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    from baker.plan.requests import BuildOptions
    from baker.plan.step_range import layer_options

    baker, options, plans = app.baker(), BuildOptions(no_cache=args.no_cache, first=args.from_), []
    for file in args.files:
        for template in baker.load_request(request_of(args, file, options)):
            plan = baker.plan(template)
            image = baker.planned_image(plan) if plan and not (args.no_cache or args.from_) else None
            steps = baker.explain(plan, layer_options(template, options)) if plan else []
            plans.append((template, plan, image, steps))
    if args.json:
        app.json([to_json(*each) for each in plans])
        return 0
    for number, each in enumerate(plans):
        app.lines([""] * bool(number) + lines(app, *each))
    return 0


def lines(app: App, template: Template, plan: Plan | None, image: ImageRecord | None, steps: list[Explained]) -> list[str]:
    """The plan of one image as text."""
    paint, machine = app.out.paint, template.builder.describe()
    where = f"resolved by {template.builder.kind} during the build" if template.builder.publishes else "not on this host yet"
    source = f"{plan.source.title}  {short(plan.source.digest)}" if plan else f"{source_title(template)}, {where}"
    head = [f"{paint(f'{template.name} {template.version}', 'bold')}  {template.path}"]
    head += fields([("source", source), ("machine", machine), ("fingerprint", plan.fingerprint if plan else "")])
    keys = {planned.index: short(planned.key) for planned in plan.steps} if plan else {}
    explained = {step.index: step for step in steps}
    rows = [
        [str(index), step.name, step.kind, keys.get(index, "?"), *cached(explained.get(index), image), step.bundle or step.origin]
        for index, step in enumerate(template.provisioners, start=1)
    ]
    names = ["#", "STEP", "KIND", "KEY", "CACHED", "WHY", "FROM"]
    body = app.table(names, rows, right={0}, indent="  ", style="") if rows else []
    return [*head, *([""] if rows else []), *body, "", "  " + outcome(template, plan, image, steps)]


def cached(step: Explained | None, image: ImageRecord | None) -> list[str]:
    """The columns CACHED and WHY of a step: why it runs again, and why no layer is kept after it."""
    if step is None:
        return ["?", ""]
    if image is not None or step.cached:
        return ["yes", "" if step.has_layer or image is not None else "in a later layer"]
    reason = step.reason.removesuffix("not kept")
    kept = f"not kept: {step.why_not_kept}" if step.why_not_kept else ""
    return ["no", "; ".join(part for part in (reason, kept) if part)]


def outcome(template: Template, plan: Plan | None, image: ImageRecord | None, steps: list[Explained]) -> str:
    """A sentence that says what `bake build` would do now."""
    if image is not None:
        verified = "verified" if image.verified else "not verified"
        return f"bake build would do nothing: image {image.id} ({verified}) has this fingerprint"
    work = [] if plan else ["get the source"]
    done = sum(step.cached for step in steps)
    work += [f"continue from the layer after step {done}"] if done else []
    left = len(template.provisioners) - done
    work.append(f"run {plural(left, 'step')}" if template.provisioners else "use the source unchanged")
    if template.verify:
        work.append(f"test the image ({plural(len(template.verify), 'suite')})")
    return "bake build would " + (", then ".join(work))


def source_title(template: Template) -> str:
    """The source as it is written in the template."""
    source: Any = template.source
    for name in ("image", "url", "path", "suite", "id", "name"):
        value = getattr(source, name, None)
        if value is not None:
            return f"{ {'id': 'ami', 'name': 'ssm_parameter'}.get(name, name) } {value}"
    return "source_ami_filter"


def to_json(template: Template, plan: Plan | None, image: ImageRecord | None, steps: list[Explained]) -> dict[str, Any]:
    """The plan of one image as JSON; keys and digests are null while the source is not on this host."""
    keys = {planned.index: planned for planned in plan.steps} if plan else {}
    explained = {step.index: step for step in steps}
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
                "cached": image is not None or (index in explained and explained[index].cached),
                "why": explained[index].reason if index in explained and image is None else "",
                "layer": index in explained and explained[index].has_layer,
                "why_not_kept": explained[index].why_not_kept if index in explained else "",
            }
            for index, step in enumerate(template.provisioners, start=1)
        ],
        "fingerprint": plan.fingerprint if plan else None,
        "image": image.id if image else None,
    }
