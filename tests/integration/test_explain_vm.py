"""What a build changed, told from outside, held against what the guest's own find says; and a journal that a real kernel left."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from baker.core.model import Disk
from baker.disks import qemuimg
from baker.disks.manifest import file_manifest
from baker.disks.partitions import filesystem, partitions
from baker.disks.raw import open_raw
from tests.support.cli import Bake

TEMPLATE = """schema: 1
name: changes
version: 1.0.0
source: {image: debian-13}
builder: {memory: 1GiB}
provisioners:
  - name: make
    shell: "mkdir -p /opt/tree/sub; echo one >/opt/tree/sub/file; echo x >/opt/passing; chmod 600 /etc/motd"
    cache: {keep: true}
  - {name: move, shell: "mv /opt/tree /opt/moved; rm /opt/passing; echo two >/opt/late", cache: {keep: true}}
"""


def test_changes_are_told_by_step_and_journals_read_as_e2fsck_does(baked: Bake, tmp_path: Path) -> None:
    (tmp_path / "changes.yaml").write_text(TEMPLATE)
    baked("build", tmp_path / "changes.yaml", "--no-cache").ok()

    def step(path: str) -> str | None:
        found = baked("why", "changes", path, "--json").ok().json
        return found["step"]["name"] if found["step"] else None

    assert step("/opt/moved") == "move"
    assert step("/opt/moved/sub/file") == "make"  # who wrote it
    assert step("/opt/late") == "move"
    assert step("/etc/motd") == "make"
    assert baked("why", "changes", "/opt/passing").code == 5
    check_journals(baked, tmp_path)


def check_journals(baked: Bake, tmp_path: Path) -> None:
    """The disks of kept machines, which were never unmounted."""
    seen = 0
    for record in baked.home.glob("cache/layers/*/layer.json"):
        if json.loads(record.read_text())["template"] != "changes":
            continue
        disk = qemuimg.as_disk(record.parent / "disk.qcow2", "qcow2")
        raw, alone = qemuimg.convert(disk, tmp_path / "raw", "raw"), tmp_path / "fs"
        with open_raw(raw) as reader:
            part = next(part for part in partitions(reader) if filesystem(reader, part) == "ext4")
        count = ["iflag=skip_bytes,count_bytes", f"skip={part.start}", f"count={part.size}", "bs=1M", "conv=sparse", "status=none"]
        subprocess.run(["dd", f"if={raw.path}", f"of={alone}", *count], check=True)
        subprocess.run(["e2fsck", "-fy", "-E", "journal_only", alone], check=False, capture_output=True)
        assert list(file_manifest(disk, replay=True)) == list(file_manifest(Disk(alone, "raw", part.size)))
        seen += 1
    assert seen
