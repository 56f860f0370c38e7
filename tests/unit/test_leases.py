"""Leases: who may do something now."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from baker.core.leases import FileLeases
from baker.core.locks import locked

HOLD = """
import sys, time
from pathlib import Path
from baker.core.leases import FileLeases
with getattr(FileLeases(Path(sys.argv[1])), sys.argv[2])("a/b") as lease:
    print(lease.owner, flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(root: Path, how: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that holds the lease "a/b" until its stdin ends; and its owner."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(root), how], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


def test_one_holds_it_alone(tmp_path: Path) -> None:
    leases = FileLeases(tmp_path)
    with leases.exclusive("a/b") as first:
        assert first.name == "a/b" and leases.holder("a/b") == first.owner
        with leases.try_exclusive("a/b") as second:
            assert second is None
        with leases.try_exclusive("a/c") as other:
            assert other is not None, "another name is another lease"
    with leases.exclusive("a/b") as later:
        assert later.token > first.token


@pytest.mark.parametrize("how", ["exclusive", "shared"])
def test_a_killed_holder_has_lost_it(tmp_path: Path, how: str) -> None:
    leases = FileLeases(tmp_path)
    waited: list[str] = []
    with held_elsewhere(tmp_path, how) as (process, owner):

        def on_wait() -> None:
            waited.append(leases.holder("a/b"))
            process.send_signal(signal.SIGKILL)

        with leases.try_exclusive("a/b") as lease:
            assert lease is None
        with leases.exclusive("a/b", on_wait) as lease:
            assert lease.owner != owner
    assert waited == [owner if how == "exclusive" else "another process"]


def test_those_who_share_do_not_wait_for_each_other(tmp_path: Path) -> None:
    leases = FileLeases(tmp_path)
    with held_elsewhere(tmp_path, "shared"), leases.shared("a/b"), leases.try_exclusive("a/b") as alone:
        assert alone is None


def test_a_lock_file_that_is_removed_while_somebody_waits_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path) as first:
        assert first is not None
        path.unlink()
        with locked(path, wait=False) as second:
            assert second is not None and path.exists()
