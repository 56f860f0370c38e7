"""The disk of the AMI that tests begin with: the shipped debian-13 with what reads EC2's metadata, baked by bake itself and exported, once.

    ec2-guest    templates/debian-13-ec2.yaml: the bundle for a base that is imported. The default: SSH answers after 32 to 39 s
    cloud-init   templates/debian-13-cloud-init.yaml here: Debian's own, as its AMIs have it: after 59 s, its user is `debian`

Measured with TCG on two shared cores, from RunInstances to the first command over SSH.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from tests.support.cli import PROJECT, Bake

TEMPLATES = {
    "debian-13-cloud-init": PROJECT / "tests/ec2/templates/debian-13-cloud-init.yaml",
    "debian-13-ec2": PROJECT / "templates/debian-13-ec2.yaml",
}
CLOUD_INIT, EC2_GUEST = "debian-13-cloud-init", "debian-13-ec2"
SIZE = 4  # GiB


def seed_disk(baked: Path, directory: Path, image: str = EC2_GUEST) -> Path:
    """The qcow2 in `directory`, made when it is not there yet; `baked` is a bake home with debian-13 in it, which is left as it is. Takes a
    minute and a mirror the first time. Processes that ask at once share one."""
    directory.mkdir(parents=True, exist_ok=True)
    disk = directory / f"{image}.qcow2"
    with (directory / f"{image}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not disk.exists():
            home, part = directory / f"{image}.home", disk.with_suffix(".part")
            shutil.copytree(baked, home, copy_function=link_or_copy, symlinks=True)
            bake = Bake(home)
            bake("build", TEMPLATES[image], "--skip-verify").ok()
            bake("export", image, "--format", "qcow2", "--output", part, "--overwrite").ok()
            part.rename(disk)
            shutil.rmtree(home)
    return disk


def link_or_copy(source: str, destination: str) -> None:
    """Blobs and layers are linked: nobody changes them."""
    if "/blobs/" in source or ("/layers/" in source and "/locks/" not in source):
        os.link(source, destination)
    else:
        shutil.copy2(source, destination)
