"""Crash reports: tracebacks of bugs, written to a file so that they can be attached to a bug report."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from baker.core.errors import BakeError
from baker.core.home import ensure
from baker.core.secrets import SHORTEST_FORM, Secrets


def keep(text: str, state: Path) -> Path | None:
    """Write a traceback, whose secrets are masked already, to a private file. Returns its path, or None when it cannot be written."""
    try:
        path = ensure(state / "crashes") / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.txt"
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        path.chmod(0o600)
    except (OSError, BakeError):
        return None
    return path


def possible_secrets(variables: Mapping[str, str], var_files: Iterable[str | Path] = (), templates: Iterable[str | Path] = ()) -> Secrets:
    """The values that a traceback of this run may contain and must not show.

    These are the values of `variables`, those in variable files, and the defaults in templates. Each may be secret: after a bug, the
    declarations that say which ones are cannot be relied on. A file that cannot be read is skipped.
    """
    found = dict(variables)
    for number, path in enumerate(var_files):
        found |= dict(_walk(f"file {number}", _read(path)))
    for number, path in enumerate(templates):
        document = _read(path)
        declared = document.get("variables") if isinstance(document, Mapping) else None
        specs = declared.values() if isinstance(declared, Mapping) else ()
        found |= dict(_walk(f"template {number}", [spec.get("default") if isinstance(spec, Mapping) else spec for spec in specs]))
    return Secrets({name: value for name, value in found.items() if len(value) >= SHORTEST_FORM})


def _read(path: str | Path) -> Any:
    """The document in a YAML file. For a file that is not YAML, the part of each line after its colon, or the line."""
    import yaml  # here because it is needed after a bug only

    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return [line.partition(":")[2].strip() or line.strip() for line in text.splitlines()]


def _walk(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """The (name, text) of every scalar in a document that is neither null nor a boolean."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _walk(f"{name}.{key}", each)
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _walk(f"{name}.{index}", each)
    elif value is not None and not isinstance(value, bool):
        yield name, str(value)
