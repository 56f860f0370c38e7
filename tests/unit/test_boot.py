"""From a launch request to an open connection: what is reported, what is kept, and what is left when it fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from baker.build.artifacts import ArtifactCollector
from baker.build.boot import launched, power_off, restored
from baker.catalog.records import ImageRecord
from baker.core.errors import BootError
from baker.core.events import Memory, Output, Reporter, StageFinished
from baker.core.home import ensure
from baker.core.ledger import Ledger
from baker.core.model import BootOptions, Identity, MachineSpec
from baker.disks import qemuimg
from baker.layers.store import Layer, LayerRecord
from baker.machines.base import Launch
from baker.machines.ssh.communicator import Disconnected
from baker.sessions.ephemeral import boot
from tests.support.fake_builder import FakeBuilder, FakeGuests
from tests.support.fakes import FakeClock, FakeCommunicator
from tests.support.workshop import Workshop, open_workshop

PANIC = ("Kernel panic - not syncing", "no init found")


@contextmanager
def silent(*arguments: Any, **options: Any) -> Iterator[FakeCommunicator]:
    """A connection to a machine that never answers."""
    raise BootError("the machine does not answer", console=PANIC, code="machine.ssh-timeout")
    yield FakeCommunicator()


@dataclass
class Bench:
    """A builder and guests that are fakes, and a request for a machine."""

    builder: FakeBuilder
    connect: FakeGuests
    request: Launch
    memory: Memory
    artifacts: ArtifactCollector

    @property
    def stages(self) -> list[tuple[str, bool]]:
        return [(event.stage, event.ok) for event in self.memory.events if isinstance(event, StageFinished)]

    @property
    def console(self) -> list[str]:
        return [event.line for event in self.memory.events if isinstance(event, Output) and event.stream == "console"]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    clock, memory, scratch = FakeClock(), Memory(), ensure(tmp_path / "scratch" / "verify")
    disk = qemuimg.create_overlay(qemuimg.as_disk(_empty(tmp_path / "disk.qcow2"), "qcow2"), tmp_path / "top.qcow2")
    identity = Identity("web", "root", scratch / "client_key", scratch / "host_key")
    with Ledger(tmp_path / "ledger").open("0123456789ab") as ledger:
        request = Launch("verify", disk, MachineSpec(), identity, scratch, ledger, Reporter(memory, "0123456789ab"))
        collector = ArtifactCollector(tmp_path / "scratch", tmp_path / "scratch" / "build.log")
        yield Bench(FakeBuilder(clock), FakeGuests(clock), request, memory, collector)


def _empty(path: Path) -> Path:
    from tests.support.disks import create_qcow2

    create_qcow2(path, 1 << 20)
    return path


def test_a_machine_that_answers_has_its_stages_reported_and_its_console_kept(bench: Bench) -> None:
    with launched(bench.builder, bench.request, bench.connect, timeout=5, artifacts=bench.artifacts) as connected:
        assert connected.machine.name == "verify"
        assert connected.communicator.run("true").exit_code == 0
        assert bench.artifacts.snapshot().consoles == {}, "it still grows"
    assert bench.stages == [("launch", True), ("boot", True)]
    assert bench.artifacts.snapshot().consoles["verify"].read_text() == "verify login:\n"


def test_a_machine_that_does_not_answer_has_its_console_reported_and_kept(bench: Bench) -> None:
    with pytest.raises(BootError) as caught, launched(bench.builder, bench.request, silent, timeout=5, artifacts=bench.artifacts):
        pytest.fail("it is not there")
    assert (caught.value.code, bench.console) == ("machine.ssh-timeout", list(PANIC))
    assert bench.stages == [("launch", True), ("boot", False)]
    assert bench.artifacts.snapshot().consoles["verify"].read_text() == "verify login:\n"


def test_a_console_is_kept_only_where_that_is_asked_for(bench: Bench) -> None:
    with launched(bench.builder, bench.request, bench.connect, timeout=5):
        pass
    assert not list(bench.request.scratch.parent.glob("*.console.log"))


def a_layer(bench: Bench, directory: Path) -> Layer:
    ensure(directory)
    qemuimg.create_overlay(bench.request.disk, directory / "disk.qcow2")
    (directory / "memory.zst").write_text('["step-1"]')
    record = LayerRecord(key="k", parent=None, step=1, name="packages", template="web", build="b", made=0.0, work=1.0, cost=1.0)
    return Layer(directory, record)


@pytest.mark.parametrize("set_clock", [True, False])
def test_a_restored_machine_is_told_the_time_unless_its_own_goes_on(bench: Bench, tmp_path: Path, set_clock: bool) -> None:
    layer = a_layer(bench, tmp_path / "layer")
    request = replace(bench.request, overlay=tmp_path / "overlay.qcow2")
    with restored(bench.builder, request, layer, bench.connect, timeout=5, set_clock=set_clock) as connected:
        calls = [call.script for call in connected.communicator.calls]  # type: ignore[attr-defined]
        assert connected.machine.restored
    assert [("date -u -s" in script) for script in calls] == [set_clock]
    assert bench.stages == [("restore", True)]


def test_a_guest_whose_connection_ends_while_it_powers_off_is_no_error() -> None:
    guest = FakeCommunicator()
    guest.answers = {"poweroff": Disconnected("gone")}
    power_off(guest, 5.0)
    assert [call.timeout for call in guest.calls] == [5.0]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    with open_workshop(tmp_path) as made:
        yield made


def booted(shop: Workshop, image: ImageRecord, connect: Any) -> Any:
    services = replace(shop.services(shop.heard), connect=connect)
    return boot(services, image, shop.catalog.build_of(image).shape, BootOptions(timeout=5))


def test_an_ephemeral_machine_leaves_nothing(shop: Workshop) -> None:
    image = shop.bake("step-1").image
    assert image is not None
    with booted(shop, image, shop.guests) as running:
        assert (running.title, running.machine.name) == ("web 1.0.0", "run")
    assert shop.left() == [] and not list(shop.home.work("*").parent.glob("*"))


def test_an_ephemeral_machine_that_does_not_answer_says_what_helps_and_shows_its_console(shop: Workshop) -> None:
    image = shop.bake("step-1").image
    assert image is not None
    with pytest.raises(BootError) as caught, booted(shop, image, silent):
        pytest.fail("it is not there")
    assert caught.value.code == "machine.ssh-timeout" and "--timeout" in caught.value.hint
    assert all(line in "\n".join(caught.value.__notes__) for line in PANIC)
    assert [event.line for event in shop.heard.events if isinstance(event, Output) and event.stream == "console"] == list(PANIC)
    assert shop.left() == []
