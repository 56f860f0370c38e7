"""The examples in the documentation as files, and its tables that are generated from the code."""

from __future__ import annotations

import re
from pathlib import Path

from baker.build.seal import SEAL_RULES
from baker.disks.normalize_rules import RULES

DOCS = Path(__file__).parents[2] / "docs"


def write_examples(document: str, directory: Path) -> list[Path]:
    """Write every code block of docs/`document` with `file=NAME` below `directory`. Returns their paths."""
    found = re.findall(r"^```\w+ file=(\S+)\n(.*?)^```$", (DOCS / document).read_text(), re.MULTILINE | re.DOTALL)
    paths = []
    for name, text in found:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        paths.append(path)
    return paths


def seal_rules_table() -> str:
    """The rules of sealing as the Markdown table of docs/seal.md."""
    rows = [f"| `{rule.name}` | {rule.removes} | {rule.reason} |" for rule in SEAL_RULES]
    return "\n".join(["| Rule | What leaves the image | Why |", "|---|---|---|", *rows]) + "\n"


def normalize_rules_table() -> str:
    """The rules of reproducibility as the Markdown table of docs/reproducibility.md."""
    rows = [f"| `{rule.title}` | {rule.effect} | {rule.reason} |" for rule in RULES]
    return "\n".join(["| Rule | What it does | Why |", "|---|---|---|", *rows]) + "\n"
