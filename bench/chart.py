"""The report's chart: one pair of bars per case on a logarithmic scale of seconds, as a small SVG for light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT = 800, 236, 118
TOP, ROW, BAR = 54, 46, 15
TEXT_GAP = 6

# The grey of the text is readable on white and on black. If the colour scheme is known, a better one is used.
STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #6e7781 }
.strong { font-weight: 600 }
.bake { fill: #2f81f7 } .packer { fill: #8b949e }
line { stroke: #8b949e; stroke-opacity: .35 }
@media (prefers-color-scheme: light) { text { fill: #424a53 } }
@media (prefers-color-scheme: dark) { text { fill: #c9d1d9 } }
"""


@dataclass(frozen=True)
class Pair:
    """One case: seconds of both tools."""

    title: str
    bake: float
    packer: float


def chart(pairs: Sequence[Pair]) -> str:
    """The whole SVG document."""
    low, high = decades(value for pair in pairs for value in (pair.bake, pair.packer))
    bottom = TOP + ROW * len(pairs)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 34}" width="{WIDTH}" height="{bottom + 34}" role="img">',
        "<title>Seconds that bake and Packer take, by case (logarithmic)</title>",
        f"<style>{STYLE}</style>",
        *_legend(),
    ]
    for power in range(low, high + 1):
        x = _x(10.0**power, low, high)
        parts.append(f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{10.0**power:g} s</text>')
    for number, pair in enumerate(pairs):
        parts += _row(pair, TOP + ROW * number, low, high)
    return "\n".join([*parts, "</svg>", ""])


def decades(values: Iterable[float]) -> tuple[int, int]:
    """The powers of ten that enclose all values."""
    found = [value for value in values if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(found))), math.ceil(math.log10(max(found)))
    return low, max(high, low + 1)


def seconds(value: float) -> str:
    """Seconds with two or three significant digits: 0.62 s, 8.4 s, 151 s."""
    return f"{value:.2f} s" if value < 1 else f"{value:.1f} s" if value < 100 else f"{value:.0f} s"


def _row(pair: Pair, y: float, low: int, high: int) -> list[str]:
    middle = y + BAR + 5
    parts = [f'<text x="{LEFT - 10}" y="{middle}" text-anchor="end">{escape(pair.title)}</text>']
    for name, value, top in (("bake", pair.bake, y), ("packer", pair.packer, y + BAR + 1)):
        end = _x(value, low, high)
        parts.append(f'<rect class="{name}" x="{LEFT}" y="{top}" width="{max(1.0, end - LEFT):.1f}" height="{BAR}" rx="2"/>')
        parts.append(f'<text x="{max(LEFT, end) + TEXT_GAP:.1f}" y="{top + BAR - 3}">{seconds(value)}</text>')
    ratio = pair.bake / pair.packer
    parts.append(f'<text class="strong" x="{WIDTH - 6}" y="{middle}" text-anchor="end">{ratio:.3f}</text>')
    return parts


def _legend() -> list[str]:
    return [
        f'<rect class="bake" x="{LEFT}" y="14" width="13" height="13" rx="2"/><text x="{LEFT + 19}" y="25">bake</text>',
        f'<rect class="packer" x="{LEFT + 70}" y="14" width="13" height="13" rx="2"/><text x="{LEFT + 89}" y="25">Packer</text>',
        f'<text x="{WIDTH - 6}" y="25" text-anchor="end">bake / Packer</text>',
    ]


def _x(value: float, low: int, high: int) -> float:
    share = (math.log10(max(value, 10.0**low)) - low) / (high - low)
    return LEFT + share * (WIDTH - LEFT - RIGHT)
