"""Compare two machines, old then new: packages, services, users, files, and directory sizes. Each of the two may be an image, a layer
(NAME@STEP), or a running `bake shell` (shell:ID)."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from baker.cli.app import App
from baker.cli.options import add_json
from baker.render.text import clean, size

if TYPE_CHECKING:
    from baker.explain.diff import Comparison, FileChange, ItemChange

EXAMPLES = """
  bake diff web@1.3.0 web@1.4.0
  bake diff web shell:5f1c22aa90b7        what was changed in a running shell
  bake diff layer:web@2 layer:web@3       what step 3 did
  bake diff debian-13 web --packages --json
"""
PARTS = ("packages", "services", "users", "files", "sizes")
LARGEST = 20  # number of directories shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("before", metavar="A", help="an image, layer:NAME@STEP, or shell:ID")
    parser.add_argument("after", metavar="B", help="the same, to compare it with")
    for part in PARTS:
        parser.add_argument(f"--{part}", action="store_true", help=HELP[part])
    parser.add_argument("--times", action="store_true", help="also list files that differ only in their time")
    add_json(parser)


HELP = {
    "packages": "show only packages",
    "services": "show only services",
    "users": "show only users and groups",
    "files": "show only files, with the changed lines of small texts",
    "sizes": "show only the growth of directories",
}


def run(args: argparse.Namespace, app: App) -> int:
    comparison = app.baker().diff(args.before, args.after, times=args.times)
    wanted = [part for part in PARTS if getattr(args, part)] or list(PARTS)
    for note in comparison.notes if "packages" in wanted else ():
        app.note(note)
    if args.json:
        from baker.explain.diff import to_json

        names = {*wanted, "before", "after"} | ({"groups"} if "users" in wanted else set())
        app.json({name: value for name, value in to_json(comparison).items() if name in names})
        return 0
    lines = list(_lines(app, comparison, wanted))
    if not lines:
        app.note(f"{comparison.before} and {comparison.after} do not differ")
    app.lines(lines)
    return 0


def _lines(app: App, comparison: Comparison, wanted: Sequence[str]) -> Iterator[str]:
    """The sections, separated by empty lines. A single section has no title."""
    bodies = {
        "packages": list(_named(app, comparison.packages)),
        "services": list(_named(app, comparison.services)),
        "users": [*_named(app, comparison.users), *_named(app, comparison.groups, "group ")],
        "files": [line for each in comparison.files for line in _file(app, each)],
        "sizes": [f"{_signed(count):>12}  {clean(directory)}" for directory, count in comparison.sizes[:LARGEST]],
    }
    first = True
    for part in wanted:
        if bodies[part]:
            if len(wanted) > 1:
                yield from ([] if first else [""])
                yield app.out.paint(part, "bold")
            yield from bodies[part]
            first = False


def _named(app: App, changes: Sequence[ItemChange], kind: str = "") -> Iterator[str]:
    for each in changes:
        name = kind + clean(each.name)
        if not each.before:
            yield app.out.paint(f"+ {name}  {clean(each.after)}", "green")
        elif not each.after:
            yield app.out.paint(f"- {name}  {clean(each.before)}", "red")
        else:
            yield app.out.paint(f"~ {name}  {clean(each.before)} -> {clean(each.after)}", "yellow")


def _file(app: App, change: FileChange) -> Iterator[str]:
    """The lines of a changed file. `A`, `D` and `C` are the letters of `docker diff`."""
    letter, style = {"added": ("A", "green"), "removed": ("D", "red")}.get(change.what[0], ("C", "yellow"))
    yield app.out.paint(f"{letter} {clean(change.path)}", style) + (f"  {_details(change)}" if letter == "C" else "")
    for line in change.diff:
        yield "    " + app.out.paint(clean(line), {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], ""))


def _details(change: FileChange) -> str:
    """The changed attributes: `content (1.2 KiB -> 1.4 KiB), mode (0644 -> 0600)`."""
    old, new = change.before, change.after
    if old is None or new is None:
        return ""
    detail = {
        "content": f"{size(old.size)} -> {size(new.size)}",
        "mode": f"{old.mode & 0o7777:04o} -> {new.mode & 0o7777:04o}" if old.mode >> 12 == new.mode >> 12 else "another file type",
        "owner": f"{old.uid}:{old.gid} -> {new.uid}:{new.gid}",
        "link target": f"{clean(old.target)} -> {clean(new.target)}",
    }
    return ", ".join(f"{word} ({detail[word]})" if word in detail else word for word in change.what)


def _signed(count: int) -> str:
    return ("+" if count > 0 else "-") + size(abs(count))
