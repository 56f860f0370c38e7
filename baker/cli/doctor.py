"""Check whether this host can build images, with a command that fixes each problem. The exit code is 6 if a requirement is missing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from baker.cli.app import App
from baker.cli.options import add_json
from baker.core.errors import HostError
from baker.render.text import cells, clean, pad, plural

if TYPE_CHECKING:
    from baker.upkeep.doctor import Finding

EXAMPLES = """
  bake doctor
  bake doctor --json | jq -r '.[] | select(.ok | not) | .fix'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(args: argparse.Namespace, app: App) -> int:
    findings = app.baker().doctor()
    missing = [finding for finding in findings if finding.required and not finding.ok]
    if args.json:
        app.json([asdict(finding) for finding in findings])
    else:
        app.lines(lines(app, findings))
    return HostError.exit_code if missing else 0


def lines(app: App, findings: Sequence[Finding]) -> list[str]:
    """A line for each finding with its fix below it, then a summary; with --quiet only the problems."""
    paint, glyphs = app.out.paint, app.out.glyphs
    column = max((cells(finding.name) for finding in findings), default=0)
    shown = []
    for finding in findings:
        if finding.ok and app.quiet:
            continue
        sign = paint(glyphs.ok, "green") if finding.ok else paint(glyphs.bad, "red") if finding.required else paint(glyphs.warn, "yellow")
        first, *more = finding.found.splitlines() or [""]
        shown.append(f"{sign} {pad(finding.name, column)}  {clean(first)}".rstrip())
        shown += [f"  {' ' * column}  {clean(line)}" for line in more]
        if not finding.ok and finding.fix:
            shown += [f"  {' ' * column}  {paint('fix:', 'bold')} {paint(line, 'cyan')}" for line in finding.fix.splitlines()]
    return [*shown, *([""] if shown else []), summary(findings)] if not app.quiet or shown else []


def summary(findings: Sequence[Finding]) -> str:
    """A sentence that says whether images can be built on this host."""
    missing = [finding for finding in findings if finding.required and not finding.ok]
    advice = [finding for finding in findings if not finding.required and not finding.ok]
    if missing:
        return f"images cannot be built on this host; {plural(len(missing), 'problem')}: {', '.join(finding.name for finding in missing)}"
    if advice:
        return f"images can be built on this host; {plural(len(advice), 'recommendation')} above"
    return "images can be built on this host"
