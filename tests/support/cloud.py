"""Builds on the emulated EC2 with fake guests: real HTTP, catalog and ledger, and a clock with short waits."""

from __future__ import annotations

import gzip
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from baker.aws.session import Access, Aws
from baker.build.recipe import Outcome, bake
from baker.build.services import Services
from baker.catalog.catalog import Catalog
from baker.core.clock import Clock
from baker.core.errors import Interrupted
from baker.core.events import Event, Memory, Message, Null, Reporter, StageFinished
from baker.core.home import Home
from baker.core.leases import FileLeases
from baker.core.ledger import Ledger
from baker.core.model import Endpoint, Identity, TestOutcome, TestReport
from baker.machines.ec2.builder import Ec2Builder
from baker.plan.requests import BuildOptions
from baker.sources import registry as sources
from baker.store.directory import DirectoryStore
from baker.template.builders import BuilderConfig
from baker.template.load import load
from baker.template.model import Template, TestinfraVerify
from baker.upkeep.sweep import Swept, sweep
from tests.ec2 import Emulator, keys
from tests.support.fakes import FakeClock, FakeCommunicator

REGION, COPIES = "eu-central-1", ("eu-west-1", "us-east-1", "us-west-2", "ap-south-1")
LISTING = b"f\t644\t0\t0\t3\t1700000000.0\t\t./etc/issue\0d\t755\t0\t0\t0\t1700000000.0\t\t.\0"
DIGESTS = b"a" * 64 + b" *./etc/issue\0"
REAL_SECONDS = 0.02  # longest real sleep: the emulator's states change on the real clock


class QuickClock(FakeClock):
    """A clock on which hours pass quickly. Its date is the real one, because AWS compares it with its own."""

    def date(self) -> float:
        return time.time() + sum(self.slept)

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        time.sleep(min(seconds, REAL_SECONDS))


@cache
def session() -> Any:
    """The boto3 session of all tests, so that its data is loaded once."""
    import boto3

    return boto3.Session(aws_access_key_id=keys.BAKE, aws_secret_access_key="secret")


class Signalled(Memory):
    """Collects every event, and raises Interrupted at the end of a stage."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage = stage

    def emit(self, event: Event) -> None:
        super().emit(event)
        if isinstance(event, StageFinished) and event.stage == self.stage:
            raise Interrupted(signal.SIGTERM)


@dataclass
class Guests:
    """Implements baker.build.services.Connect with fake guests, in which one script may fail."""

    fail: str = ""  # a part of a script that fails
    seen: list[Endpoint] = field(default_factory=list)

    @contextmanager
    def __call__(
        self, endpoint: Endpoint, identity: Identity, machine: Any, scratch: Path, *, report: Reporter, timeout: float
    ) -> Iterator[FakeCommunicator]:
        from tests.support.fakes import ended

        self.seen.append(endpoint)
        guest = FakeCommunicator(scratch / "ssh_config")
        guest.files["/run/bake-listing/files"] = (gzip.compress(LISTING), 0o644, "root", "root")
        guest.files["/run/bake-listing/digests"] = (gzip.compress(DIGESTS), 0o644, "root", "root")
        guest.answers["dpkg-query"] = ended(stdout="nginx\t1.26\tamd64\tdeb\n")
        if self.fail:
            guest.answers[self.fail] = ended(9, stderr="it fails")
        yield guest


@dataclass
class Yard:
    """One account, one home, one source AMI."""

    cloud: Emulator
    directory: Path
    home: Home
    catalog: Catalog
    ami: str
    clock: QuickClock = field(default_factory=QuickClock)
    guests: Guests = field(default_factory=Guests)
    heard: Memory = field(default_factory=Memory)
    signal_after: str = ""  # the stage at whose end a signal is simulated
    tests_pass: bool = True
    builders: list[Ec2Builder] = field(default_factory=list)

    def template(self, builder: str = "", *, source: str = "", name: str = "web", version: str = "1.0.0", more: str = "") -> Template:
        path = self.directory / f"{name}.yaml"
        (self.directory / "test_it.py").write_text("def test_it():\n    pass\n")
        keys = f"kind: ec2, region: {REGION}, endpoint_url: '{self.cloud.url}'"
        keys += "" if "instance_type" in builder else ", instance_type: t3.micro"
        path.write_text(
            f"schema: 1\nname: {name}\nversion: {version}\nsource: {source or f'{{ami: {self.ami}}}'}\n"
            f"builder: {{{keys}{', ' if builder else ''}{builder}}}\n"
            f"{more}provisioners:\n  - shell: step-1\nverify:\n  - testinfra: test_it.py\n"
        )
        return load(path, env={}, secret_key=b"k" * 32)[0]

    def bake(self, builder: str = "", *, template: Template | None = None, **options: Any) -> Outcome:
        self.heard = Signalled(self.signal_after)
        return bake(template or self.template(builder), BuildOptions(**options), self.services())

    def services(self) -> Services:
        return Services(
            home=self.home,
            store=DirectoryStore(self.home.blobs),
            catalog=self.catalog,
            ledger=Ledger(self.home.ledger),
            leases=FileLeases(self.home.state),
            sink=self.heard,
            builder=self.builder,
            connect=self.guests,
            source=sources.for_spec,
            clock=self.time,
            env={"BAKE_HTTP_CACHE": "0"},
            test=self.test,
        )

    @property
    def time(self) -> Clock:
        return Clock(self.clock.now, self.clock.date, self.clock.sleep)

    def builder(self, spec: BuilderConfig, uri: str | None = None) -> Ec2Builder:
        self.builders.append(Ec2Builder(self.home, spec=spec, clock=self.time, aws=self.aws))  # type: ignore[arg-type]
        return self.builders[-1]

    def aws(self, access: Access, clock: Clock) -> Aws:
        return Aws(access, clock, session())

    def test(
        self,
        checks: Sequence[TestinfraVerify],
        ssh_config: Path,
        host: str,
        *,
        scratch: Path,
        report: Reporter,
        timeout: float | None = None,
        user: str | None = None,
        mask: Callable[[str], str] = str,
    ) -> TestReport:
        outcome = TestOutcome("test_it", "passed" if self.tests_pass else "failed", 0.1)
        return TestReport((outcome,), 0.1, "<testsuites/>")

    @property
    def said(self) -> str:
        return "\n".join(event.text for event in self.heard.events if isinstance(event, Message))

    def ledgers(self) -> list[str]:
        return [path.name for path in self.home.ledger.glob("*/[0-9]*.json")]

    def sweep(self) -> list[Swept]:
        return sweep(self.home, self.catalog, Reporter(Null()), kept=True, builders=(Ec2Builder(self.home, clock=self.time, aws=self.aws),))

    def fresh(self) -> None:
        """Reset the account."""
        self.cloud.reset()
        self.ami = self.cloud.seed_image()

    @property
    def access(self) -> dict[str, Any]:
        return {"region": REGION, "endpoint_url": self.cloud.url}

    def actions(self) -> list[str]:
        return [call["action"] for call in self.cloud.calls]


@contextmanager
def yard(cloud: Emulator, directory: Path) -> Iterator[Yard]:
    """A fresh account and a fresh home."""
    cloud.reset()
    directory.mkdir(parents=True, exist_ok=True)
    home = Home.from_environment({"BAKE_HOME": str(directory / "home"), "HOME": str(directory)})
    home.data.mkdir(parents=True)
    catalog = Catalog(home.catalog)
    yield Yard(cloud, directory, home, catalog, cloud.seed_image())
    catalog.close()
