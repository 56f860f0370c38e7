"""The story as a self-contained HTML file, without scripts, external fonts or external pictures."""

from __future__ import annotations

from pathlib import Path

from baker.render.text import clean, duration, size
from baker.trust.audit.picture import draw
from baker.trust.audit.story import Story

PAGE = Path(__file__).parent / "page.html"


def page(story: Story) -> str:
    """The whole page. All data is escaped; control and bidirectional formatting characters are removed."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"duration": duration, "bytes": size, "clean": lambda text: clean(str(text)), "lines": _lines}
    return environment.from_string(PAGE.read_text()).render(story=story, image=story.image, build=story.build, picture=draw(story))


def _lines(text: str) -> str:
    """A multi-line text without control characters."""
    return "\n".join(clean(line) for line in text.splitlines())
