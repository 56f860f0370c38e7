"""The worked examples of the documentation, as files: what people copy is what is tested."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def write_examples(document: str, directory: Path) -> list[Path]:
    """Write every code block of docs/`document` that says `file=NAME` below `directory`; their paths."""
    found = re.findall(r"^```\w+ file=(\S+)\n(.*?)^```$", (DOCS / document).read_text(), re.MULTILINE | re.DOTALL)
    paths = []
    for name, text in found:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        paths.append(path)
    return paths
