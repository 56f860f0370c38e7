"""The picture of a lineage: `bake history IMAGE --json | python -m docs.figures.lineage -`.

What the picture needs of that goes into docs/figures/lineage.json (no host, no user, no path), and docs/figures/lineage.svg is drawn from
it. Without `-` nothing is read, and the picture is drawn again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from docs.figures.svg import arrow, page, rectangle, text

HERE = Path(__file__).resolve().parent
LEFT, BOX, RIGHT, LINE, GAP, WIDTH = 24, 400, 470, 18, 30, 900
MOST = 8  # steps shown of one build


def reduce(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the picture needs of `bake history --json`, root first."""
    found = []
    for each in history:
        image, build = each["image"], each["build"] or {}
        found.append(
            {
                **{key: image[key] for key in ("name", "version", "id", "digest", "created", "verified")},
                "source": build.get("source", {}).get("title", ""),
                "seconds": _seconds(build),
                "steps": [{key: step[key] for key in ("index", "name", "kind", "seconds")} for step in build.get("steps", ())],
            }
        )
    return found


def _seconds(build: Mapping[str, Any]) -> float | None:
    if not build.get("started") or not build.get("finished"):
        return None
    return (datetime.fromisoformat(build["finished"]) - datetime.fromisoformat(build["started"])).total_seconds()


def draw(line: Sequence[Mapping[str, Any]]) -> str:
    """The root's source at the top, each image below its parent, its steps beside it."""
    body, y = [], 24
    if line and line[0]["source"]:
        body += [rectangle(LEFT, y, BOX, 34, "band", 6), text(LEFT + 14, y + 22, line[0]["source"], kind="soft")]
        y += 34
    for image in line:
        if y > 24:
            body.append(arrow(LEFT + BOX / 2, y, LEFT + BOX / 2, y + GAP))
            y += GAP
        facts = [image["created"][:10], f"built in {_duration(image['seconds'])}" if image["seconds"] is not None else ""]
        facts.append("verified" if image["verified"] else "not verified")
        steps = [f"{step['index']}. {step['name']} ({step['kind']})  {_duration(step['seconds'])}" for step in image["steps"]]
        steps = steps if len(steps) <= MOST else [*steps[: MOST - 1], f"and {len(steps) - MOST + 1} more"]
        height = max(24 + LINE * 3, LINE * (len(steps) + 1) + 6)
        body += [
            rectangle(LEFT, y, BOX, height, "box", 6),
            text(LEFT + 14, y + 26, f"{image['name']} {image['version']}", kind="bold", size=15),
            text(LEFT + 14, y + 46, f"{image['id'][:12]}  {image['digest'][:19]}…", kind="soft mono", size=12),
            text(LEFT + 14, y + 66, " · ".join(fact for fact in facts if fact), kind="soft", size=12),
        ]
        if steps:
            body.append(f'<path d="M{LEFT + BOX} {y + 22} L{RIGHT - 12} {y + 22}" class="line"/>')
        body += [text(RIGHT, y + 26 + LINE * number, step, size=12, kind="soft") for number, step in enumerate(steps)]
        y += height
    return page(WIDTH, y + 24, "The lineage of an image", body)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m {rest:02}s" if minutes else f"{seconds:.1f}s" if seconds < 10 else f"{rest}s"


def main(arguments: list[str]) -> None:
    path = HERE / "lineage.json"
    if arguments == ["-"]:
        path.write_text(json.dumps(reduce(json.load(sys.stdin)), indent=1) + "\n")
    path.with_suffix(".svg").write_text(draw(json.loads(path.read_text())))


if __name__ == "__main__":
    main(sys.argv[1:])
