"""Lay out the lineage as a picture: the positions of the boxes and arrows of an SVG, which page.html draws.

The root is at the top. The inputs of an image are to its left; the places where the audited image was published and released are to its
right. Lengths are in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from baker.render.text import plural, short
from baker.trust.audit.story import Ancestor, Story

WIDTH, SIDE, MIDDLE, GAP = 1000, 280, 340, 50
LINE, PADDING, BETWEEN = 18, 14, 34
LETTERS = 31  # characters in a line of a side box


@dataclass(frozen=True)
class Box:
    """A box with lines of text, the first of which is its title. `kind` is its CSS class in the page."""

    kind: str  # source, image, subject, inputs, outputs
    x: int
    y: int
    width: int
    height: int
    lines: tuple[str, ...]

    @property
    def baselines(self) -> tuple[tuple[int, str], ...]:
        return tuple((self.y + PADDING + LINE * number + 13, text) for number, text in enumerate(self.lines))


@dataclass(frozen=True)
class Arrow:
    """A straight arrow."""

    x1: int
    y1: int
    x2: int
    y2: int


@dataclass(frozen=True)
class Picture:
    width: int
    height: int
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def draw(story: Story) -> Picture:
    """Lay out the picture of a story."""
    boxes: list[Box] = []
    arrows: list[Arrow] = []
    left, right = SIDE + GAP, SIDE + GAP + MIDDLE
    y, above = 4, None
    for ancestor in reversed(story.line):
        if above is None and ancestor.build and ancestor.build.source.get("title"):
            above = _box(
                "source", left, y, MIDDLE, (str(ancestor.build.source["title"]), short(str(ancestor.build.source.get("digest", ""))))
            )
            boxes.append(above)
            y += above.height + BETWEEN
        subject = ancestor.image is story.image
        sides = [_box("inputs", 0, y, SIDE, _went_in(ancestor))] if ancestor.build else []
        if subject and (where := _went_to(story)):
            sides.append(_box("outputs", right + GAP, y, SIDE, where))
        about = _about(ancestor)
        height = max([_height(len(about)), *(side.height for side in sides)])
        middle = Box("subject" if subject else "image", left, y, MIDDLE, height, about)
        boxes += [middle, *sides]
        centre = y + height // 2
        for side in sides:
            arrows.append(Arrow(SIDE, centre, left, centre) if side.kind == "inputs" else Arrow(right, centre, right + GAP, centre))
        if above is not None:
            arrows.append(Arrow(left + MIDDLE // 2, above.y + above.height, left + MIDDLE // 2, y))
        y, above = y + height + BETWEEN, middle
    return Picture(WIDTH, y - BETWEEN + 4, tuple(boxes), tuple(arrows))


def _box(kind: str, x: int, y: int, width: int, lines: Sequence[str]) -> Box:
    return Box(kind, x, y, width, _height(len(lines)), tuple(_cut(line) for line in lines))


def _height(lines: int) -> int:
    return 2 * PADDING + LINE * lines


def _cut(text: str) -> str:
    """Shorten a long text to its end, because paths differ in their ends."""
    return text if len(text) <= LETTERS else "…" + text[-LETTERS + 1 :]


def _about(ancestor: Ancestor) -> tuple[str, ...]:
    image = ancestor.image
    marks = ["made by hand"] if image.origin == "committed" else []
    marks += ["revoked"] if ancestor.revoked else []
    marks += ["removed"] if image.removed else []
    lines = (
        _cut(f"{image.name} {image.version}"),
        f"{image.id} · {short(image.digest)}",
        f"{image.created[:10]} · {'verified' if image.verified else 'not verified'}",
    )
    return (*lines, ", ".join(marks)) if marks else lines


def _went_in(ancestor: Ancestor) -> tuple[str, ...]:
    build = ancestor.build
    assert build is not None
    commit = f"commit {build.git_commit[:12]}{'+' if build.git_dirty else ''}" if build.git_commit else "not in git"
    steps = f"{plural(len(build.steps), 'step')}, {plural(len(build.inputs), 'file')}"
    return (build.template_path, commit, steps + (f", {ancestor.fetched} fetched" if ancestor.fetched else ""))


def _went_to(story: Story) -> tuple[str, ...]:
    channels = [f"channel {channel.channel}" for channel in story.channels]
    published = [f"{one.reference} {one.region}" for one in story.publications if not one.removed]
    released = [f"{one.title} to {one.target}: {one.status}" for one in story.releases]
    lines = [*channels, *published, *released]
    return tuple(lines[:6]) + ((f"and {len(lines) - 6} more",) if len(lines) > 6 else ())
