"""The artifacts of a build for its record: collected while the build runs, then passed on as one frozen value.

Only the stage that writes a file and this value know the file's path in the build's scratch directory.
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
    """One item for the record. `content`: bytes, or a file that the store may move. `digest`: set if it is known before."""

    name: str
    content: bytes | Path
    digest: str = ""


@dataclass(frozen=True)
class BuildArtifacts:
    """The artifacts of a build so far: plain values and paths of files. A build on another host would send these."""

    log: Path
    consoles: Mapping[str, Path] = field(default_factory=dict)  # name of a machine -> the log of its serial console
    junit: str = ""
    ansible_content: tuple[AnsibleContent, ...] = ()
    egress: tuple[EgressEndpoint, ...] | None = None  # connections that bypassed the proxy; None: not recorded
    downloads: tuple[Path, ...] = ()  # the proxy's recordings, in order: the layer's, then the build's
    inspection: Inspection | None = None

    @property
    def downloads_complete(self) -> bool:
        """Whether every download of the machines was recorded."""
        return not any(map(incomplete, self.downloads))

    def logs(self, mask: Mask) -> Iterator[Evidence]:
        """The log, the consoles and the test report. A failed build has these, too."""
        yield _text("log", self.log, mask)
        for machine, path in self.consoles.items():
            yield _text(f"{machine}_console", path, mask)
        if self.junit:
            yield Evidence("junit", pack_text(mask(self.junit)))

    def evidence(self, mask: Mask) -> Iterator[Evidence]:
        """All evidence for the record of an image."""
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
        """The list of downloads, and every body. A response with a secret in its URL is listed without its body."""
        lines = []
        for directory in self.downloads:
            bodies = Store(directory)
            for fetched in read(directory):
                if mask(fetched.url) != fetched.url:
                    fetched = replace(fetched, url=mask(fetched.url), digest="", headers=(), why="its URL has a secret")
                if fetched.digest:
                    yield Evidence(f"body:{fetched.digest.removeprefix('sha256:')}", bodies.body(fetched.digest), fetched.digest)
                lines.append(json.dumps(asdict(fetched), sort_keys=True, separators=(",", ":")))
        if lines:
            yield Evidence("fetches", pack_lines(lines))


class ArtifactCollector:
    """Collects the artifacts of a build's stages. The job owns it, so that a failed build has the artifacts up to the failure."""

    def __init__(self, scratch: Path, log: Path) -> None:
        self._scratch = scratch
        self._collected = BuildArtifacts(log)

    def snapshot(self) -> BuildArtifacts:
        """Return the artifacts collected so far."""
        return self._collected

    def keep_console(self, machine: str, console_log: Path) -> None:
        """Copy the log of a machine's serial console, because the machine's files are removed with it."""
        if console_log.exists():
            kept = Path(shutil.copyfile(console_log, self._scratch / f"{machine}.console.log"))
            self._collected = replace(self._collected, consoles={**self._collected.consoles, machine: kept})

    def set_junit(self, text: str) -> None:
        """Add the report of the verification."""
        self._collected = replace(self._collected, junit=text)

    def add_ansible_content(self, found: Iterable[AnsibleContent]) -> None:
        """Add roles and collections that a step, or the steps of a layer, installed."""
        self._collected = replace(self._collected, ansible_content=ansible_content.merge(self._collected.ansible_content, found))

    def add_egress(self, found: Iterable[EgressEndpoint]) -> None:
        """Add connections of a machine that bypassed the proxy."""
        self._collected = replace(self._collected, egress=tuple(dict.fromkeys((*(self._collected.egress or ()), *found))))

    def add_downloads(self, directory: Path, *, first: bool = False) -> None:
        """Add a recording of the proxy, which may still grow. `first`: put it before the other recordings."""
        known = self._collected.downloads
        self._collected = replace(self._collected, downloads=(directory, *known) if first else (*known, directory))

    def set_inspection(self, inspection: Inspection) -> None:
        """Add the inspection of the captured disk."""
        self._collected = replace(self._collected, inspection=inspection)


def _text(name: str, path: Path, mask: Mask) -> Evidence:
    return Evidence(name, pack_text(mask(path.read_text(errors="replace"))))
