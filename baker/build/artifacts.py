"""What a build leaves for its record: collected while the build runs, and handed on as one frozen value.

Files may lie anywhere in the build's scratch directory: only the stage that made one and this value know where.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from baker.artifacts import ansible_content, egress
from baker.artifacts.codecs import pack_lines, pack_packages, pack_text
from baker.build.values import Inspection
from baker.core.model import AnsibleContent, EgressEndpoint
from baker.proxy.recording import incomplete, read
from baker.proxy.store import Store

Mask = Callable[[str], str]  # hides the secrets in a text


@dataclass(frozen=True)
class Evidence:
    """One item for the record. `content`: bytes, or a file that the store may take as its own. `digest` is set where it is known before."""

    name: str
    content: bytes | Path
    digest: str = ""


@dataclass(frozen=True)
class BuildArtifacts:
    """What a build has left so far: plain values and paths of files. A build on another host would send this home."""

    log: Path
    consoles: Mapping[str, Path] = field(default_factory=dict)  # name of a machine -> the log of its serial console
    junit: str = ""
    ansible_content: tuple[AnsibleContent, ...] = ()
    egress: tuple[EgressEndpoint, ...] | None = None  # what the machine reached past the proxy; None: not looked at
    downloads: tuple[Path, ...] = ()  # the proxy's recordings, in order: that of the layer, then the build's own
    inspection: Inspection | None = None

    @property
    def downloads_complete(self) -> bool:
        """Whether all that the machines downloaded could be recorded."""
        return not any(map(incomplete, self.downloads))

    def logs(self, mask: Mask) -> Iterator[Evidence]:
        """The log, the consoles and the test report: what a failed build leaves too."""
        yield _text("log", self.log, mask)
        for machine, path in self.consoles.items():
            yield _text(f"{machine}_console", path, mask)
        if self.junit:
            yield Evidence("junit", pack_text(mask(self.junit)))

    def evidence(self, mask: Mask) -> Iterator[Evidence]:
        """Everything, for the record of an image."""
        yield from self.logs(mask)
        yield from self._downloads(mask)
        if self.ansible_content:
            yield Evidence(ansible_content.EVIDENCE, ansible_content.pack(self.ansible_content))
        if self.egress is not None:
            yield Evidence(egress.EVIDENCE, egress.pack(self.egress))
        if self.inspection:
            yield Evidence("packages_before", pack_packages(self.inspection.packages_before))
            yield Evidence("packages_after", pack_packages(self.inspection.packages_after))
            files = {"manifest": self.inspection.manifest, "changes": self.inspection.changes}
            yield from (Evidence(name, path) for name, path in files.items() if path)

    def _downloads(self, mask: Mask) -> Iterator[Evidence]:
        """The list of what was fetched, and every body. A response with a secret in its address is listed without its body."""
        lines = []
        for directory in self.downloads:
            bodies = Store(directory)
            for fetched in read(directory):
                if mask(fetched.url) != fetched.url:
                    fetched = replace(fetched, url=mask(fetched.url), digest="", headers=(), why="a secret is in its address")
                if fetched.digest:
                    yield Evidence(f"body:{fetched.digest.removeprefix('sha256:')}", bodies.body(fetched.digest), fetched.digest)
                lines.append(json.dumps(asdict(fetched), sort_keys=True, separators=(",", ":")))
        if lines:
            yield Evidence("fetches", pack_lines(lines))


class ArtifactCollector:
    """Takes what the stages of a build make. It belongs to the build's job, so that a failed build has what was made until then."""

    def __init__(self, scratch: Path, log: Path) -> None:
        self._scratch = scratch
        self._collected = BuildArtifacts(log)

    def snapshot(self) -> BuildArtifacts:
        """What there is now."""
        return self._collected

    def keep_console(self, machine: str, console_log: Path) -> None:
        """Copy what a guest wrote to its serial console: the machine's own files are removed with it."""
        if console_log.exists():
            kept = Path(shutil.copyfile(console_log, self._scratch / f"{machine}.console.log"))
            self._collected = replace(self._collected, consoles={**self._collected.consoles, machine: kept})

    def set_junit(self, text: str) -> None:
        """The report of the verification."""
        self._collected = replace(self._collected, junit=text)

    def add_ansible_content(self, found: Iterable[AnsibleContent]) -> None:
        """Roles and collections that a step, or the steps of a layer, installed."""
        self._collected = replace(self._collected, ansible_content=ansible_content.merge(self._collected.ansible_content, found))

    def add_egress(self, found: Iterable[EgressEndpoint]) -> None:
        """What a machine reached past the proxy."""
        self._collected = replace(self._collected, egress=tuple(dict.fromkeys((*(self._collected.egress or ()), *found))))

    def add_downloads(self, directory: Path, *, first: bool = False) -> None:
        """A recording of the proxy, which may still grow. `first`: before those that are there."""
        known = self._collected.downloads
        self._collected = replace(self._collected, downloads=(directory, *known) if first else (*known, directory))

    def set_inspection(self, inspection: Inspection) -> None:
        """What the captured disk holds."""
        self._collected = replace(self._collected, inspection=inspection)


def _text(name: str, path: Path, mask: Mask) -> Evidence:
    return Evidence(name, pack_text(mask(path.read_text(errors="replace"))))
