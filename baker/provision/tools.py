"""Find Ansible's programs on this host."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from baker.core.errors import HostError


def tool(name: str) -> str:
    """The path of Ansible's program `name`: in bake's own Python environment, else on PATH. HostError when it is not installed."""
    own = Path(sys.executable).parent / name
    found = str(own) if own.exists() else shutil.which(name)
    if found is None:
        raise HostError(
            f"{name} is not installed",
            hint="install bake with its ansible extra: pip install 'bake[ansible]'",
            code="host.ansible-missing",
        )
    return found
