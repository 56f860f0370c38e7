"""The disk of the AMI that tests begin with: templates/debian-13-ec2.yaml, baked by bake itself and exported, once.

cloud-init was measured first: with it an emulated machine (one core, shared) answered over SSH after 125 s, 60 to 70 s of them
cloud-init's (cloud-init-main 19, -local 15 to 34, -network 25, and -config and -final after that); with the bundle ec2-guest see
tests/integration/test_ec2_machines.py.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from tests.support.cli import PROJECT, Bake

TEMPLATE = PROJECT / "templates/debian-13-ec2.yaml"
SIZE = 4  # GiB
ROOT_DEVICE = "/dev/xvda"


def seed_disk(baked: Path, directory: Path) -> Path:
    """The qcow2 in `directory`, made when it is not there yet; `baked` is a bake home with debian-13 in it, which is left as it is. Takes a
    minute and a mirror the first time. Processes that ask at once share one."""
    directory.mkdir(parents=True, exist_ok=True)
    disk = directory / "debian-13-ec2.qcow2"
    with (directory / "seed.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not disk.exists():
            home, part = directory / "home", disk.with_suffix(".part")
            shutil.copytree(baked, home, copy_function=link_or_copy, symlinks=True)
            bake = Bake(home)
            bake("build", TEMPLATE, "--skip-verify").ok()
            bake("export", "debian-13-ec2", "--format", "qcow2", "--output", part, "--overwrite").ok()
            part.rename(disk)
            shutil.rmtree(home)
    return disk


def link_or_copy(source: str, destination: str) -> None:
    """Blobs and layers are linked: nobody changes them."""
    if "/blobs/" in source or ("/layers/" in source and "/locks/" not in source):
        os.link(source, destination)
    else:
        shutil.copy2(source, destination)
