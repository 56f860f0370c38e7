"""Which layers go, in which order, and what an interrupted removal leaves."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from baker.core.errors import BusyError
from baker.layers.store import LayerRecord, LayerStore
from baker.upkeep.cache_budget import Collected, collect, drop_based_on

NOW = 1_700_000_000.0
DAY = 86400.0
KIB = 1024


@pytest.fixture
def store(tmp_path: Path) -> LayerStore:
    return LayerStore(tmp_path / "layers")


def make(store: LayerStore, name: str, parent: str | None = None, *, work: float = 10.0, age: float = 0.0, kib: int = 64, blob: str = "b"):
    """A layer of `kib` KiB that was last used `age` seconds ago; its directory name."""
    place = store.machine_directory("0" * 12, 1)
    place.mkdir(parents=True)
    (place / "disk.qcow2").write_bytes(b"x" * kib * KIB)
    key = (name * 64)[:64]
    record = LayerRecord(key, parent, 1, name, "web", name * 3, NOW - age, work, 1.0, blobs=(blob,))
    layer = store.commit(place, record)
    (layer.directory / "used").touch()
    os.utime(layer.directory / "used", (NOW - age, NOW - age))
    return layer.id


def short(item: Collected) -> str:
    return item.name.split()[-1]


def names(store: LayerStore) -> set[str]:
    return {layer.record.name for layer in store.all()}


def test_under_budget_nothing_goes(store: LayerStore) -> None:
    make(store, "a")
    assert collect(store, now=NOW, budget=1 << 30) == []
    assert names(store) == {"a"}


def test_what_saves_least_for_its_size_goes_first(store: LayerStore) -> None:
    make(store, "a", work=100.0)
    make(store, "b", work=5.0)
    make(store, "c", work=50.0, kib=4096)  # saves much, but takes much more
    gone = collect(store, now=NOW, budget=300 * KIB)
    assert [short(item) for item in gone] == ["c"]
    assert [short(item) for item in collect(store, now=NOW, budget=100 * KIB)] == ["b"]
    assert [item.reason for item in gone] == ["worth least"]


def test_what_nobody_used_for_weeks_is_worth_less(store: LayerStore) -> None:
    make(store, "a", work=20.0, age=21 * DAY)
    make(store, "b", work=10.0)
    assert [short(item) for item in collect(store, now=NOW, budget=100 * KIB)] == ["a"]


def test_a_layer_stays_while_one_above_it_does(store: LayerStore) -> None:
    below = make(store, "a", work=0.1)
    make(store, "b", below, work=100.0)
    make(store, "c", work=50.0)
    assert [short(item) for item in collect(store, now=NOW, budget=200 * KIB)] == ["c"]
    assert [short(item) for item in collect(store, now=NOW, budget=0)] == ["b", "a"], "those above first"


def test_age_and_damage_need_no_budget(store: LayerStore) -> None:
    make(store, "a", age=31 * DAY)
    make(store, "b")
    broken = store.get(make(store, "c"))
    assert broken
    store.mark_broken(broken, "kept with another QEMU")
    assert {short(item): item.reason for item in collect(store, now=NOW, max_age=30 * DAY)} == {
        "a": "not used for too long", "c": "cannot be restored",
    }  # fmt: skip
    assert names(store) == {"b"}


def test_a_dry_run_removes_nothing(store: LayerStore) -> None:
    below = make(store, "a")
    make(store, "b", below)
    assert [short(item) for item in collect(store, now=NOW, budget=0, dry_run=True)] == ["b", "a"]
    assert names(store) == {"a", "b"}


def test_what_a_build_uses_stays_with_all_below_it(store: LayerStore) -> None:
    below = make(store, "a")
    used = store.get(make(store, "b", below))
    make(store, "c")
    assert used
    with store.using(used) as there:
        assert there
        assert [short(item) for item in collect(store, now=NOW, budget=0)] == ["c"]
        with pytest.raises(BusyError, match="in use"):
            store.remove(used)
    assert [short(item) for item in collect(store, now=NOW, budget=0)] == ["b", "a"]


def test_a_layer_that_has_just_gone_is_not_used(store: LayerStore) -> None:
    layer = store.get(make(store, "a"))
    assert layer
    store.remove(layer)
    with store.using(layer) as there:
        assert not there


def test_a_killed_removal_leaves_no_half_layer_and_is_cleaned_up(store: LayerStore) -> None:
    """The process is killed as soon as the removal of the files begins."""
    identity = make(store, "a")
    script = f"""
import os, signal, sys
from pathlib import Path
from baker.layers.store import LayerStore
store = LayerStore(Path({str(store.root)!r}))
sys.addaudithook(lambda name, arguments: os.kill(os.getpid(), signal.SIGKILL) if name == "shutil.rmtree" else None)
store.remove(store.get({identity!r}))
"""
    ended = subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    assert names(store) == set() and store.find(("a" * 64)[:64]) is None
    assert store.clean() == 1
    assert [path.name for path in store.root.iterdir() if path.name != "locks"] == []


def test_a_layer_whose_parent_is_gone_is_not_found(store: LayerStore) -> None:
    below = store.get(make(store, "a"))
    above = store.get(make(store, "b", below.id if below else None))
    assert below and above and store.find(above.key) is not None
    below.directory.rename(store.root / "elsewhere")
    assert store.find(above.key) is None


def test_a_lock_that_somebody_removed_meanwhile_is_made_anew(store: LayerStore) -> None:
    layer = store.get(make(store, "a"))
    assert layer
    lock = store.root / "locks" / f"{layer.id}.lock"
    with store.using(layer):
        lock.unlink()
        with store.using(layer) as there, lock.open("a") as again:
            assert there
            with pytest.raises(BlockingIOError):
                fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_layers_go_with_the_image_that_they_stand_on(store: LayerStore) -> None:
    below = make(store, "a", blob="gone")
    make(store, "b", below, blob="gone")
    make(store, "c", blob="there")
    assert [short(item) for item in drop_based_on(store, {"gone"})] == ["b", "a"]
    assert names(store) == {"c"}
