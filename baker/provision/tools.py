"""Ansible's programs on this host."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from baker.core.errors import HostError


def tool(name: str) -> str:
    """Ansible's program `name`: the one of bake's own Python environment before any other."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise HostError(f"{name} is not installed", hint="install bake with its ansible extra: pip install 'bake[ansible]'")
    return found
