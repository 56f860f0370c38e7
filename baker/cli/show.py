"""Show the whole record of an image: what it is, how, where and with which tools it was built, and the results of its tests."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from baker.artifacts import codecs
from baker.catalog.records import BuildRecord, ImageRecord, StepRecord
from baker.cli.app import App
from baker.cli.options import add_json
from baker.core.errors import NotFoundError
from baker.rebuild.levels import Level
from baker.render.text import ago, clean, duration, fields, short, size

if TYPE_CHECKING:
    from baker.api import Baker

EXAMPLES = """
  bake show web
  bake show web@1.4.0 --packages
  bake show web --template
  bake show web --json | jq .build.source
"""
COLUMN = 12  # width of the column of names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", help="name, name@version, name@^1.2, name@channel, id or digest")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--template", action="store_true", help="print the template it was built from")
    what.add_argument("--packages", action="store_true", help="list its packages")
    what.add_argument("--files", action="store_true", help="list its files: mode, owner, size, path")
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    baker = app.baker()
    image = baker.catalog.resolve(args.image)
    build = baker.catalog.build_of(image)
    if args.template:
        app.out.stream.write(build.template_text)
    elif args.packages:
        show_packages(app, baker, build, json=args.json)
    elif args.files:
        show_files(app, baker, build, json=args.json)
    elif args.json:
        app.json(_whole(baker, image, build))
    else:
        app.lines(list(lines(app, baker, image, build)))
    return 0


def _whole(baker: Baker, image: ImageRecord, build: BuildRecord) -> dict[str, Any]:
    catalog = baker.catalog
    revocation = catalog.revocations.of(image.id)
    return {
        "image": asdict(image),
        "build": asdict(build),
        "children": [child.id for child in catalog.children(image.id)],
        "publications": [asdict(one) for one in catalog.published.of(image.id, all=True)],
        "channels": [channel.channel for channel in catalog.channels.of(image.id)],
        "rebuilds": [asdict(one) for one in catalog.proofs.rebuilds(image.id)],
        "revoked": asdict(revocation) if revocation else None,
        "releases": [asdict(release) for release in catalog.releases.all(image.name) if release.image == image.id],
    }


def lines(app: App, baker: Baker, image: ImageRecord, build: BuildRecord) -> Iterator[str]:
    """The whole record as text."""
    paint = app.out.paint
    yield paint(f"{image.name} {image.version}", "bold") + (f"  {clean(image.description)}" if image.description else "")
    yield from _fields(image_fields(app, baker, image))
    sections: list[tuple[str, list[str]]] = [
        ("built from", _fields(source_fields(build))),
        ("variables", variable_lines(app, build)),
        ("steps", step_lines(app, build.steps)),
        ("tests", test_lines(app, build)),
        ("built on", _fields(host_fields(build))),
        ("timings", _fields([(name, duration(seconds)) for name, seconds in build.timings.items()])),
        ("evidence", _fields([(name, digest) for name, digest in sorted(build.evidence.items()) if not name.startswith("body:")])),
    ]
    for title, body in sections:
        if body:
            yield from ("", paint(title, "bold"), *body)


def image_fields(app: App, baker: Baker, image: ImageRecord) -> list[tuple[str, str]]:
    catalog = baker.catalog
    children = [f"{child.name}@{child.version}" for child in catalog.children(image.id)]
    above = catalog.image(image.parent) if image.parent else None
    return [
        ("id", image.id),
        ("digest", image.digest),
        ("fingerprint", image.fingerprint),
        ("created", f"{image.created} ({ago(image.created, app.now())})"),
        ("size", f"{size(image.size)}{' on top of its parent' if image.parent else ''}, disk of {size(image.virtual_size)}"),
        ("verified", "yes" if image.verified else "no"),
        ("origin", "committed from a shell: not reproducible" if image.origin == "committed" else ""),
        ("rebuilt", _rebuilt(baker, image)),
        ("revoked", _revocation(baker, image)),
        ("channels", ", ".join(channel.channel for channel in catalog.channels.of(image.id))),
        ("parent", f"{above.name}@{above.version} ({above.id})" if above else ""),
        ("children", ", ".join(children)),
        ("labels", _pairs(image.labels)),
        ("matrix", _pairs(image.matrix)),
        ("published", "\n".join(f"{one.reference} {one.region} ({one.kind}, {one.account})" for one in catalog.publications(image.id))),
        ("released", "\n".join(_releases(baker, image))),
        ("log in as", image.ssh_username),
        ("build", image.build),
    ]


def _rebuilt(baker: Baker, image: ImageRecord) -> str:
    """The highest level that a rebuild has reached, when and by whom."""
    rebuilds = baker.catalog.proofs.rebuilds(image.id)
    if not rebuilds:
        return ""
    best = max(rebuilds, key=lambda rebuild: (rebuild.level, rebuild.at))
    newest = rebuilds[-1]
    later = f"; the last one, {newest.at}: {Level(newest.level).title}" if newest.level < best.level else ""
    return f"{Level(best.level).title}, {Level(best.level).words}: {best.at} by {best.who}{later}"


def _revocation(baker: Baker, image: ImageRecord) -> str:
    revocation = baker.catalog.revocations.of(image.id)
    if revocation is None:
        return ""
    through = f", through image {revocation.inherited_from}" if revocation.inherited_from else ""
    return f"with effect from {revocation.effective}, by {revocation.who}{through}: {clean(revocation.reason)}"


def _releases(baker: Baker, image: ImageRecord) -> list[str]:
    releases = [release for release in baker.catalog.releases.all(image.name) if release.image == image.id]
    return [f"{one.title} to {one.target}, {one.started}: {one.status}" for one in releases]


def source_fields(build: BuildRecord) -> list[tuple[str, str]]:
    source = build.source
    by_hand = build.reproduction.get("committed", {})
    commit = build.git_commit + (" with uncommitted changes" if build.git_dirty else "") if build.git_commit else ""
    return [
        ("committed", f"by {build.who}, from a shell of {source.get('title', '?')}" if by_hand else ""),
        ("message", str(by_hand.get("message", ""))),
        ("template", build.template_path),
        ("its digest", build.template_digest),
        ("git commit", commit),
        ("source", str(source.get("title", ""))),
        ("its digest", str(source.get("digest", ""))),
        ("pinned", _pairs(source.get("pins") or {})),
    ]


def host_fields(build: BuildRecord) -> list[tuple[str, str]]:
    host, machine, spec = build.host, build.machine, build.shape
    accelerator = " ".join(
        filter(
            None, [str(machine.get("accelerator", "")), f"({machine['accelerator_reason']})" if machine.get("accelerator_reason") else ""]
        )
    )
    shown_spec = {name: size(value) if name in ("memory", "disk_size") and value else value for name, value in spec.items()}
    return [
        ("when", f"{build.started} to {build.finished}"),
        ("who", build.who),
        ("host", ", ".join(str(host[name]) for name in ("name", "system", "kernel", "cpu") if host.get(name))),
        ("hypervisor", " ".join(str(machine[name]) for name in ("hypervisor", "machine_type", "connection") if machine.get(name))),
        ("accelerator", accelerator),
        ("machine", _pairs({name: value for name, value in shown_spec.items() if value is not None})),
        ("tools", "\n".join(f"{name}: {version}" for name, version in sorted(build.tools.items()))),
        ("CI", _pairs(build.ci)),
    ]


def variable_lines(app: App, build: BuildRecord) -> list[str]:
    rows = []
    for name, about in sorted(build.variables.items()):
        value = "(secret)" if about.get("sensitive") else str(about.get("value"))
        rows.append([name, value, str(about.get("type", "")), str(about.get("origin", ""))])
    return _table(app, ["NAME", "VALUE", "TYPE", "FROM"], rows)


def step_lines(app: App, steps: tuple[StepRecord, ...]) -> list[str]:
    rows = [
        [str(step.index), step.name, step.kind, step.status, duration(step.seconds), short(step.key), step.bundle or step.origin]
        for step in steps
    ]
    return _table(app, ["#", "STEP", "KIND", "STATUS", "TIME", "KEY", "FROM"], rows, right={0, 4})


def test_lines(app: App, build: BuildRecord) -> list[str]:
    if not build.tests:
        return [f"  {build.verify}"] if build.verify in ("skipped", "none") else []
    return _table(app, ["OUTCOME", "TIME", "TEST"], [[test.outcome, duration(test.seconds), test.name] for test in build.tests], right={1})


def show_packages(app: App, baker: Baker, build: BuildRecord, *, json: bool) -> None:
    with baker.store.open(_evidence(build, "packages_after", "list of packages")) as blob:
        listed = codecs.read_packages(blob)
    for reason in listed.unread:
        app.note(f"packages may be missing from this list: {reason}")
    if json:
        app.json([codecs.package_to_json(package) for package in listed.packages])
        return
    app.lines(app.table(["PACKAGE", "VERSION", "ARCH"], [[p.name, p.version, p.architecture] for p in listed.packages]))


def show_files(app: App, baker: Baker, build: BuildRecord, *, json: bool) -> None:
    with baker.store.open(_evidence(build, "manifest", "list of files")) as blob:
        entries = codecs.read_manifest(blob)
        if json:
            app.json([asdict(entry) for entry in entries])
            return
        for entry in entries:
            target = f" -> {clean(entry.target)}" if entry.target else ""
            app.out.stream.write(f"{entry.mode:06o} {entry.uid:>5} {entry.gid:>5} {entry.size:>12}  {clean(entry.path)}{target}\n")


def _evidence(build: BuildRecord, name: str, what: str) -> str:
    if name not in build.evidence:
        raise NotFoundError(f"build {build.id} has no {what} on record", code="record.evidence-missing")
    return build.evidence[name]


def _fields(pairs: list[tuple[str, str]]) -> list[str]:
    return fields(pairs, width=COLUMN)


def _table(app: App, headers: list[str], rows: list[list[str]], right: set[int] | None = None) -> list[str]:
    return app.table(headers, rows, right=right or (), indent="  ", style="dim") if rows else []


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())
