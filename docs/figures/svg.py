"""The SVG that all figures share: one card with its own background, so that it reads on light and on dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

SANS = "font-family: 'DejaVu Sans', Verdana, 'Segoe UI', Helvetica, Arial, sans-serif"
MONO = "font-family: 'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace"
LIGHT = {"paper": "#ffffff", "ink": "#1f2328", "soft": "#59636e", "line": "#d1d9e0", "band": "#f3f5f8", "mark": "#0969da", "bad": "#cf222e"}
LIGHT_TERMINAL = ("#1f2328", "#cf222e", "#1a7f37", "#9a6700", "#0969da", "#8250df", "#1b7c83", "#59636e")
DARK_TERMINAL = ("#484f58", "#f85149", "#3fb950", "#d29922", "#4493f8", "#ab7df8", "#39c5cf", "#e6edf3")
DARK = {"paper": "#0d1117", "ink": "#e6edf3", "soft": "#9198a1", "line": "#3d444d", "band": "#161b22", "mark": "#4493f8", "bad": "#f85149"}


def _style(colours: dict[str, str], terminal: Sequence[str]) -> str:
    painted = " ".join(f".c{number} {{ fill: {colour} }}" for number, colour in enumerate(terminal))
    return (
        f".paper {{ fill: {colours['paper']}; stroke: {colours['line']} }} .band {{ fill: {colours['band']} }}"
        f" .box {{ fill: {colours['paper']}; stroke: {colours['line']} }} .line {{ stroke: {colours['line']}; fill: none }}"
        f" .arrow {{ stroke: {colours['soft']}; fill: none }} .mark {{ fill: {colours['mark']} }} .bad {{ fill: {colours['bad']} }}"
        f" text {{ fill: {colours['ink']}; {SANS} }} .soft {{ fill: {colours['soft']} }} .on {{ fill: {colours['mark']} }}"
        f" .mono {{ {MONO} }} .bold {{ font-weight: bold }} .italic {{ font-style: italic }} {painted}"
    )


def text(x: float, y: float, content: str, *, size: int = 13, kind: str = "", anchor: str = "start", turn: int = 0) -> str:
    """One line of text with its baseline at (x, y); `turn` in degrees."""
    attributes = f' class="{kind}"' if kind else ""
    attributes += f' text-anchor="{anchor}"' if anchor != "start" else ""
    attributes += f' transform="rotate({turn} {x:g} {y:g})"' if turn else ""
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}"{attributes} xml:space="preserve">{escape(content, quote=False)}</text>'


def rectangle(x: float, y: float, width: float, height: float, kind: str, radius: int = 0) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" class="{kind}"' + (f' rx="{radius}"/>' if radius else "/>")


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:g} {y1:g} L{x2:g} {y2:g}" class="arrow" marker-end="url(#head)"/>'


def page(width: int, height: int, title: str, body: Sequence[str]) -> str:
    """A whole SVG document. Nothing in it depends on when or where it was made."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">',
            f"<title>{escape(title, quote=False)}</title>",
            f"<style>{_style(LIGHT, LIGHT_TERMINAL)}\n@media (prefers-color-scheme: dark) {{ {_style(DARK, DARK_TERMINAL)} }}</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0 L8 4 L0 8" class="arrow"/></marker></defs>',
            f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8" class="paper"/>',
            *body,
            "</svg>",
            "",
        ]
    )
