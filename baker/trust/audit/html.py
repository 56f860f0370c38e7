"""The story as one HTML file that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from pathlib import Path

from baker.render.text import clean, duration, size
from baker.trust.audit.picture import draw
from baker.trust.audit.story import Story

PAGE = Path(__file__).parent / "page.html"


def page(story: Story) -> str:
    """The whole page. Everything that is not the page's own is escaped, and characters that would lie about their order are taken out."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"duration": duration, "bytes": size, "clean": lambda text: clean(str(text)), "lines": _lines}
    return environment.from_string(PAGE.read_text()).render(story=story, image=story.image, build=story.build, picture=draw(story))


def _lines(text: str) -> str:
    """A text of several lines without control characters."""
    return "\n".join(clean(line) for line in text.splitlines())
