"""Python packages for a moment: what an installed plugin looks like to bake."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from baker.core.plugins import installed


@contextmanager
def on_path(directory: Path) -> Iterator[None]:
    """Let `directory` be one that Python imports from, with the distributions (*.dist-info) in it."""
    sys.path.insert(0, str(directory))
    importlib.invalidate_caches()
    installed.cache_clear()
    try:
        yield
    finally:
        sys.path.remove(str(directory))
        importlib.invalidate_caches()
        installed.cache_clear()
