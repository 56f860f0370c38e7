"""Real machines. The shipped base is baked once for all tests; each test works on a copy of its home (blobs hard-linked)."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from baker.core.home import Home
from baker.core.model import Disk
from tests.ec2.seed import CLOUD_INIT, link_or_copy, seed_disk
from tests.support.cli import PROJECT, Bake
from tests.support.machines import bootable
from tests.support.order import ordered

# Most tests want a small machine on the base: layer 0 of that shape is in the shared home, so that they need not wait for a boot.
SMALL = """
schema: 1
name: small-base
version: 1.0.0
source: {image: debian-13}
builder: {cpus: 1, memory: 512MiB}
provisioners:
  - shell: 'true'
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A machine that does not come up is a failure, not a hang. The order is that of tests.support.order."""
    for item in items:
        if not any(item.iter_markers("timeout")):
            item.add_marker(pytest.mark.timeout(2700))
    items[:] = ordered(items)


@pytest.fixture(scope="session")
def shared_root(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A directory that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def baked_home(shared_root: Path) -> Path:
    """A home in which `bake build templates/web.yaml` was run once, base and all. Nobody may change it.

    BAKE_TEST_HOME names one from an earlier run, for whoever runs a single test again and again."""
    if os.environ.get("BAKE_TEST_HOME"):
        return Path(os.environ["BAKE_TEST_HOME"])
    home = shared_root / "baked"
    with (shared_root / "baked.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "done").exists():
            shutil.rmtree(home, ignore_errors=True)
            result = Bake(home)("build", PROJECT / "templates/web.yaml", "--json", timeout=2000)
            (shared_root / "baked.out").write_text(result.out + result.err)
            (home / "peak").write_text(str(result.peak_kib))
            result.ok()
            small = shared_root / "small-base.yaml"
            small.write_text(SMALL)
            Bake(home)("build", small, "--until", "1", timeout=600).ok()
            (home / "done").touch()
    return home


@pytest.fixture(scope="session")
def ec2_seed(request: pytest.FixtureRequest, shared_root: Path) -> Path:
    """The disk of an AMI with the bundle ec2-guest. BAKE_TEST_EC2_SEED names one from an earlier run."""
    if os.environ.get("BAKE_TEST_EC2_SEED"):
        return Path(os.environ["BAKE_TEST_EC2_SEED"])
    return seed_disk(request.getfixturevalue("baked_home"), shared_root / "ec2-seed")


@pytest.fixture(scope="session")
def ec2_cloud_init_seed(request: pytest.FixtureRequest, shared_root: Path) -> Path:
    """The disk of an AMI with cloud-init, whose user is `debian`. BAKE_TEST_EC2_CLOUD_INIT_SEED names one from an earlier run."""
    if os.environ.get("BAKE_TEST_EC2_CLOUD_INIT_SEED"):
        return Path(os.environ["BAKE_TEST_EC2_CLOUD_INIT_SEED"])
    return seed_disk(request.getfixturevalue("baked_home"), shared_root / "ec2-seed", CLOUD_INIT)


@pytest.fixture
def base_disk(request: pytest.FixtureRequest) -> Disk:
    """A bootable Debian."""
    return bootable(request)


@pytest.fixture
def baked(baked_home: Path, tmp_path: Path) -> Iterator[Bake]:
    """`bake` with a home of the test's own that has the shipped images."""
    home = tmp_path / "home"
    shutil.copytree(baked_home, home, copy_function=link_or_copy, symlinks=True)
    yield Bake(home)
    _end(home)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Bake]:
    """`bake` with an empty home."""
    yield Bake(tmp_path / "home")
    _end(tmp_path / "home")


def _end(home: Path) -> None:
    """Leave no machine behind, whatever the test did."""
    if home.is_dir():
        Bake(home)("sweep", "--kept", timeout=120)
        shutil.rmtree(Home.from_environment({"BAKE_HOME": str(home), "HOME": "/"}).runtime, ignore_errors=True)
