"""The ledger: what a killed process leaves is found, what a live one holds is left alone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from baker.core.errors import BusyError
from baker.core.ledger import Ledger

HOLDER = """
import sys, time
from pathlib import Path
from baker.core.ledger import Ledger
with Ledger(Path(sys.argv[1])).open("abc") as ledger:
    ledger.enter("directory", path="/nowhere/one")
    ledger.enter("domain", name="two")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def holder(ledger: Ledger):
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(ledger.root)], stdout=subprocess.PIPE, text=True)
    assert child.stdout and child.stdout.readline() == "ready\n"
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def test_nothing_is_left_of_a_build_that_gave_everything_back(ledger: Ledger) -> None:
    with ledger.open("abc") as build:
        entry = build.enter("directory", path="/nowhere")
        build.strike(entry)
    assert list(ledger.root.iterdir()) == []


def test_entries_of_a_build_that_ended_badly_are_found_newest_first(ledger: Ledger) -> None:
    with ledger.open("abc") as build:
        build.enter("directory", path="/one")
        build.enter("domain", name="two")
    assert ledger.dead_builds() == ("abc",)
    with ledger.dead("abc") as dead:
        assert dead is not None
        assert [(entry.kind, dict(entry.details)) for entry in dead.entries] == [
            ("domain", {"name": "two"}),
            ("directory", {"path": "/one"}),
        ]


def test_a_live_build_is_not_dead_until_it_is_killed(ledger: Ledger, holder: subprocess.Popen[str]) -> None:
    assert ledger.live() == ("abc",)
    assert ledger.dead_builds() == ()
    with ledger.dead("abc") as dead:
        assert dead is None
    with pytest.raises(BusyError, match="abc") as error, ledger.open("abc"):
        pass
    assert error.value.code == "build.running"
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert ledger.dead_builds() == ("abc",)
    with ledger.dead("abc") as dead:
        assert dead is not None and len(dead.entries) == 2


def test_the_directory_goes_with_its_last_entry(ledger: Ledger) -> None:
    with ledger.open("abc") as build:
        build.enter("directory", path="/one")
    with ledger.dead("abc") as dead:
        assert dead is not None
        for entry in dead.entries:
            entry.path.unlink()
    assert list(ledger.root.iterdir()) == []


def test_what_a_person_asked_to_keep_waits_for_an_explicit_sweep(ledger: Ledger) -> None:
    with ledger.open("abc") as build:
        build.enter("domain", name="two")
        build.keep("a step failed")
        assert build.kept
    assert ledger.dead_builds(kept=False) == ()
    assert ledger.dead_builds(kept=True) == ("abc",)


def test_a_half_written_entry_is_not_an_entry(ledger: Ledger) -> None:
    with ledger.open("abc") as build:
        build.enter("domain", name="two")
        (build.directory / "0002.tmp").write_text('{"kind": "dom')
    with ledger.dead("abc") as dead:
        assert dead is not None and [entry.kind for entry in dead.entries] == ["domain"]


class Raced(Ledger):
    """A ledger whose build `gone` ends between the look at the directories and the look at its lock."""

    def _directories(self) -> list[Path]:
        return [*super()._directories(), self.root / "gone"]


def test_a_build_that_ends_while_somebody_looks_is_neither_alive_nor_dead(ledger: Ledger, holder: subprocess.Popen[str]) -> None:
    raced = Raced(ledger.root)
    assert (raced.live(), raced.dead_builds()) == (("abc",), ())
    with raced.dead("gone") as dead:
        assert dead is None
    assert not (ledger.root / "gone").exists()
