"""Removing what a bootstrap left: never through a mount into the host's own file systems."""

import os
import subprocess
from pathlib import Path

import pytest

from baker.core.user_namespace import in_private_mounts, mounts_below, remove_tree

TABLE = """\
22 1 0:21 / /proc rw - proc proc rw
40 1 254:0 / /home rw - ext4 /dev/vda rw
41 40 0:30 / /home/me/a\\040b/proc rw - proc proc rw
42 40 0:31 / /home/me/a\\040b/dev/pts rw - devpts none rw
43 40 0:31 / /home/me/a\\040bc rw - tmpfs none rw
"""


def test_only_what_is_mounted_below_is_found(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(TABLE)
    found = mounts_below(Path("/home/me/a b"), tmp_path / "mountinfo")
    assert [str(path) for path in found] == ["/home/me/a b/proc", "/home/me/a b/dev/pts"]


def test_a_tree_without_mounts_goes(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").write_text("x")
    remove_tree(tmp_path / "a")
    remove_tree(tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_what_is_mounted_in_a_tree_survives_its_removal(tmp_path: Path) -> None:
    precious, tree = tmp_path / "precious", tmp_path / "tree"
    (tree / "mnt").mkdir(parents=True)
    precious.mkdir()
    (precious / "file").write_text("keep me")
    try:
        subprocess.run(["mount", "--bind", str(precious), str(tree / "mnt")], check=True, capture_output=True)
    except subprocess.CalledProcessError:
        pytest.skip("this sandbox does not let root mount")
    remove_tree(tree)
    assert not tree.exists()
    assert (precious / "file").read_text() == "keep me"
    assert mounts_below(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_what_a_bootstrap_mounts_stays_its_own(tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    script = f"mount -t tmpfs none {tmp_path}/mnt && touch {tmp_path}/mnt/inside && test -e {tmp_path}/mnt/inside"
    subprocess.run(in_private_mounts(["sh", "-c", script]), check=True)
    assert mounts_below(tmp_path) == []
    assert not (tmp_path / "mnt/inside").exists()
