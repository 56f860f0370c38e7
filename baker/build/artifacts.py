"""What a build leaves for its record: collected while the build runs, and handed on as one frozen value."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class BuildArtifacts:
    """What a build has left so far: plain values, and paths of files in its scratch directory."""

    log: Path
    consoles: Mapping[str, Path] = field(default_factory=dict)  # name of a machine -> the log of its serial console


class ArtifactCollector:
    """Takes what the stages of a build make. It belongs to the build, so that a failed build has what was made until then."""

    def __init__(self, scratch: Path, log: Path) -> None:
        self._scratch, self._log = scratch, log
        self._consoles: dict[str, Path] = {}

    def keep_console(self, machine: str, console_log: Path) -> None:
        """Copy what a guest wrote to its serial console: the machine's own files go away with it."""
        if console_log.exists():
            self._consoles[machine] = Path(shutil.copyfile(console_log, self._scratch / f"{machine}.console.log"))

    def snapshot(self) -> BuildArtifacts:
        """What there is now."""
        return BuildArtifacts(self._log, dict(self._consoles))
