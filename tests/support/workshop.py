"""Builds with fakes: a home, a builder, guests, and a template that can be changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from baker.build.recipe import Outcome, bake
from baker.build.services import Services
from baker.catalog.catalog import Catalog
from baker.core.clock import Clock
from baker.core.events import Memory, Message, StepFinished, StepStarted
from baker.core.home import Home
from baker.core.leases import FileLeases
from baker.core.ledger import Ledger
from baker.core.model import TestReport
from baker.layers.store import LayerStore
from baker.plan.requests import BuildOptions
from baker.sources import registry as sources
from baker.store.directory import DirectoryStore
from baker.template.load import load
from baker.template.model import Template
from tests.support.disks import create_qcow2
from tests.support.fake_builder import FakeBuilder, FakeGuests
from tests.support.fakes import FakeClock

STEPS = ("step-1", "step-2", "step-3")


@dataclass
class Workshop:
    """A home, a builder and guests that are fakes, and a template that can be changed."""

    home: Home
    directory: Path
    clock: FakeClock
    builder: FakeBuilder
    guests: FakeGuests
    catalog: Catalog
    heard: Memory = field(default_factory=Memory)
    env: dict[str, str] = field(default_factory=lambda: {"BAKE_HTTP_CACHE": "0"})
    test: Callable[..., TestReport] = lambda *arguments, **options: TestReport((), 0.0, "")  # the result of a verification

    def template(self, *steps: str, name: str = "web", more: str = "", memory: str = "1MiB") -> Template:
        lines = [step if "\n" in step or ":" in step else f"shell: {step}" for step in steps or STEPS]
        body = "".join("  - " + line.replace("\n", "\n    ") + "\n" for line in lines)
        path = self.directory / f"{name}.yaml"
        path.write_text(
            f"schema: 1\nname: {name}\nversion: 1.0.0\nsource: {{file: disk.qcow2}}\n"
            f"builder: {{memory: {memory}}}\n{more}provisioners:\n{body}"
        )
        return load(path, env={}, secret_key=b"k" * 32)[0]

    def bake(self, *steps: str, name: str = "web", more: str = "", **options: object) -> Outcome:
        self.builder.events.clear()
        self.heard = Memory()
        options.setdefault("force", True)  # other tests cover reuse from the catalog
        return bake(self.template(*steps, name=name, more=more), BuildOptions(**options), self.services(self.heard))  # type: ignore[arg-type]

    def services(self, heard: Memory) -> Services:
        return Services(
            home=self.home,
            store=DirectoryStore(self.home.blobs),
            catalog=self.catalog,
            ledger=Ledger(self.home.ledger),
            leases=FileLeases(self.home.state),
            sink=heard,
            builder=lambda kind, uri: self.builder,
            connect=self.guests,
            source=sources.for_spec,
            clock=Clock(self.clock.now, self.clock.date, self.clock.sleep),
            env=self.env,
            test=self.test,
        )

    @property
    def ran(self) -> list[str]:
        return [event.step for event in self.heard.events if isinstance(event, StepStarted)]

    @property
    def cached(self) -> list[int]:
        return [event.index for event in self.heard.events if isinstance(event, StepFinished) and event.cached]

    @property
    def said(self) -> str:
        return "\n".join(event.text for event in self.heard.events if isinstance(event, Message))

    @property
    def layers(self) -> LayerStore:
        return LayerStore(self.home.layers)

    def kept(self) -> list[int]:
        return sorted(layer.record.step for layer in self.layers.all())

    def left(self) -> list[str]:
        """Leftovers of a build beside complete layers."""
        found = [path.name for path in self.home.layers.glob("*") if path.name != "locks" and not (path / "layer.json").exists()]
        return found + [path.name for path in self.home.ledger.glob("*")]


@contextmanager
def open_workshop(directory: Path) -> Iterator[Workshop]:
    clock = FakeClock()
    create_qcow2(directory / "disk.qcow2", 1 << 20)
    home = Home.from_environment({"BAKE_HOME": str(directory / "home"), "HOME": str(directory)})
    home.data.mkdir(parents=True)
    guests = FakeGuests(clock, takes={"step-": 30.0})
    catalog = Catalog(home.catalog)
    yield Workshop(home, directory, clock, FakeBuilder(clock), guests, catalog)
    catalog.close()
