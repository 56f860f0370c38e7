"""Helpers for tests of real machines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from baker.core.home import Home
from baker.core.model import Disk
from baker.disks import qemuimg

SSH_SECONDS = 600  # a generous timeout: emulated machines share the host with other processes


def bootable(request: pytest.FixtureRequest) -> Disk:
    """A bootable Debian: the qcow2 disk that BAKE_TEST_DISK names, else the base that this test run baked."""
    if os.environ.get("BAKE_TEST_DISK"):
        return qemuimg.as_disk(Path(os.environ["BAKE_TEST_DISK"]), "qcow2")
    from baker.api import Baker

    baked = request.getfixturevalue("baked_home")
    baker = Baker(home=Home.from_environment({"BAKE_HOME": str(baked), "HOME": str(baked)}))
    return baker.disk(baker.catalog.resolve("debian-13"))
