"""Check this host, with a command to type for each finding. Exit code 6 when something is missing that building needs."""

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
    """One line per finding, its fix below it, and a verdict; with --quiet only what is wrong."""
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
    return [*shown, *([""] if shown else []), verdict(findings)] if not app.quiet or shown else []


def verdict(findings: Sequence[Finding]) -> str:
    """Whether images can be built here, in a sentence."""
    missing = [finding for finding in findings if finding.required and not finding.ok]
    advice = [finding for finding in findings if not finding.required and not finding.ok]
    if missing:
        return f"{plural(len(missing), 'thing')} missing that building needs: {', '.join(finding.name for finding in missing)}"
    if advice:
        return f"images can be built here; {plural(len(advice), 'piece')} of advice above"
    return "images can be built here"
