"""The cases in tests/cases: one template each; its first line may say how it is loaded."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from baker.template.load import load
from baker.template.model import Template

CASES = Path(__file__).parents[1] / "cases"
OPTIONS = "# load: "


def load_case(path: Path) -> list[Template]:
    """Load a case as a user in its directory would, with an environment that only the case's first line fills."""
    first = path.read_bytes().split(b"\n", 1)[0].decode("latin-1")
    options = json.loads(first.removeprefix(OPTIONS)) if first.startswith(OPTIONS) else {}
    with contextlib.chdir(path.parent):
        return load(
            Path(path.name),
            variables=options.get("variables", {}),
            var_files=[Path(each) for each in options.get("var_files", [])],
            env=options.get("env", {}),
        )
