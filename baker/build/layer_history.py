"""The history in a layer's directory: data about the layer's steps, for the records of builds that start from the layer."""

from __future__ import annotations

from pathlib import Path

from baker.artifacts import ansible_content, egress
from baker.build import change_tracking
from baker.build.artifacts import ArtifactCollector, BuildArtifacts
from baker.build.change_tracking import ChangedInodes
from baker.proxy.recording import exists, join

# names in a layer's directory; they belong to the format of layers (FORMAT in baker/layers/store.py)
DOWNLOADS = "fetched"
ANSIBLE_CONTENT = "brought.jsonl"
EGRESS = "egress.json"
CHANGED_INODES = "touched.json"


def save(directory: Path, artifacts: BuildArtifacts, changed: ChangedInodes | None) -> None:
    """Write the history so far into the directory of a layer that is being made. HostError or OSError when the disk is full."""
    join(artifacts.downloads, directory / DOWNLOADS)
    if artifacts.ansible_content:
        ansible_content.write(directory / ANSIBLE_CONTENT, artifacts.ansible_content)
    if artifacts.egress is not None:
        egress.write(directory / EGRESS, artifacts.egress)
    if changed is not None:
        changed.write(directory / CHANGED_INODES)


def load(directory: Path, scratch: Path, artifacts: ArtifactCollector) -> ChangedInodes | None:
    """Add a layer's history to the artifacts of a build. Returns what the layer's steps changed; None if that is unknown.

    Downloads are linked below `scratch`, because the layer may be removed before the build is recorded.
    """
    if exists(directory / DOWNLOADS):
        join([directory / DOWNLOADS], scratch / "layer-downloads")
        artifacts.add_downloads(scratch / "layer-downloads", first=True)
    artifacts.add_ansible_content(ansible_content.read(directory / ANSIBLE_CONTENT))
    if (directory / EGRESS).exists():
        artifacts.add_egress(egress.read(directory / EGRESS))
    return change_tracking.read(directory / CHANGED_INODES)
