"""One build while it runs: its id, its scratch directory, its ledger, its log, and the story that becomes its record."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from baker import process
from baker.builders.base import Builder, ImageName, Machine
from baker.catalog.records import Publication
from baker.clock import Clock
from baker.communicator.base import Communicator
from baker.errors import BakeError
from baker.events import Event, Planned, Reporter, Sink, StageFinished, StepFinished, StepStarted, Tee, TestFinished
from baker.host import now
from baker.inspection import GuestListing
from baker.ledger import BuildLedger, Ledger
from baker.locks import shared
from baker.model import Disk, Endpoint, Identity, MachineFacts, Media, TestOutcome, TestReport
from baker.paths import Home, check_writable, ensure
from baker.render.logfile import LogFile
from baker.render.mask import Masked
from baker.sources.base import Source
from baker.sources.userns import remove_tree
from baker.store.directory import DirectoryStore
from baker.template.model import AnyBuilder, OnError, Template
from baker.verify import verify

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog
    from baker.explain.touched import Touched
    from baker.reproduce.relay import Relaid

STORE_LOCK = "in-use"  # shared by everybody who adds blobs; held alone by who collects them

Decision = Literal["cleanup", "abort", "retry"]


class Interaction(Protocol):
    """A person, where there is one."""

    def on_failure(self, policy: Literal["ask", "shell"], error: BakeError, ssh: Sequence[str]) -> Decision:
        """A step failed and the machine is still there: `ssh` is the command that enters it."""


class Nobody:
    """No person at the terminal: clean up."""

    def on_failure(self, policy: Literal["ask", "shell"], error: BakeError, ssh: Sequence[str]) -> Decision:
        return "cleanup"


class Connect(Protocol):
    """Waits for a machine's SSH and opens the one connection."""

    def __call__(
        self, endpoint: Endpoint, identity: Identity, machine: Machine, scratch: Path, *, report: Reporter, timeout: float
    ) -> AbstractContextManager[Communicator]: ...


@dataclass(frozen=True)
class World:
    """Everything outside: where things are kept, what runs machines, who listens. Unit tests hand in fakes."""

    home: Home
    store: DirectoryStore
    catalog: Catalog
    ledger: Ledger
    sink: Sink
    builder: Callable[[AnyBuilder, str | None], Builder]  # of a template's `builder`, and a URI over what that says
    connect: Connect
    source: Callable[[Any], Source]
    interaction: Interaction = field(default_factory=Nobody)
    clock: Clock = field(default_factory=Clock)
    env: Mapping[str, str] = field(default_factory=dict)
    search: tuple[Path, ...] = ()  # directories of bundles besides a template's own
    test: Callable[..., TestReport] = verify  # runs a template's tests


@dataclass(frozen=True)
class Options:
    """How to build, as opposed to what."""

    on_error: OnError | None = None  # over the template's and the step's
    skip_verify: bool = False
    force: bool = False  # build although the catalog has this fingerprint
    keep_failed: bool = False  # leave the machine of a failed verification
    pull: bool = False  # ask the source again instead of using what this host has
    uri: str | None = None
    no_cache: bool = False  # start from the source, not from a layer
    first: str | None = None  # this step (name or number) and those after it are carried out, layer or not
    clock: str | None = None  # what the build machine takes for the time when it starts, ISO 8601 UTC; None: the real time
    replay: Path | None = None  # a record of what was fetched: everything is fetched from it, nothing over the network
    locked: bool = False  # fail unless everything is as in the lock file beside the template
    last: str | None = None  # stop after this step: there is a layer then, and no image


@dataclass(frozen=True)
class Captured:
    """What is left of the build machine after its shutdown, its disk or an AMI, and what is known of the machine."""

    media: Media
    facts: MachineFacts | None = None  # None: there was nothing to provision, so no machine ran
    guest_listing: GuestListing | None = None  # where the host cannot read the file system
    relaid: Relaid | None = None  # how its disk was laid out again, for a template that is to be reproducible
    not_relaid: str = ""  # why it was not
    left: Disk | None = None  # the disk as the machine left it, where `media` was laid out anew of it
    touched: Touched | None = None  # which step changed what on that disk; None: that is not known
    publications: tuple[Publication, ...] = ()  # where it is, once it is published; their `image` is still empty


@dataclass(frozen=True)
class Verdict:
    """What verification says. `report` is None unless tests ran."""

    status: Literal["passed", "skipped", "none"]
    report: TestReport | None = None
    facts: MachineFacts | None = None


class Story:
    """A sink that remembers what the record of the build is made of."""

    def __init__(self) -> None:
        self.timings: dict[str, float] = {}
        self.steps: dict[int, StepFinished] = {}
        self.started: set[int] = set()
        self.tests: list[TestOutcome] = []
        self.planned: Planned | None = None

    def emit(self, event: Event) -> None:
        match event:
            case StageFinished():
                self.timings[event.stage] = round(self.timings.get(event.stage, 0.0) + event.seconds, 3)
            case Planned():
                self.planned = event
            case StepStarted():
                self.started.add(event.index)
            case StepFinished():
                self.steps[event.index] = event
            case TestFinished():
                self.tests.append(TestOutcome(event.name, event.outcome, event.seconds, event.message))


@dataclass(frozen=True)
class Job:
    """One build that is running."""

    id: str
    template: Template
    options: Options
    world: World
    builder: Builder
    ledger: BuildLedger
    scratch: Path
    report: Reporter
    story: Story
    log: LogFile
    started: float = field(default_factory=time.monotonic)
    started_at: str = field(default_factory=now)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def image(self) -> ImageName:
        """What it is to be called."""
        template = self.template
        return ImageName(template.name, template.version, template.description, dict(template.labels))


def new_id() -> str:
    """12 hex digits."""
    return secrets.token_hex(6)


@contextmanager
def open_job(template: Template, options: Options, world: World, build_id: str) -> Iterator[Job]:
    """Everything that one build needs, given back at its end in reverse order."""
    check_writable(world.home.data)
    story = Story()
    with ExitStack() as stack:
        stack.enter_context(process_mark(build_id))
        stack.enter_context(shared(world.home.state, STORE_LOCK))
        ledger = stack.enter_context(world.ledger.open(build_id))
        scratch = stack.enter_context(scratch_directory(world.home, build_id, ledger))
        log = stack.enter_context(LogFile(scratch / "build.log"))
        sink = Masked(Tee(world.sink, story, log), template.secrets)
        yield Job(
            id=build_id,
            template=template,
            options=options,
            world=world,
            builder=world.builder(template.builder, options.uri),
            ledger=ledger,
            scratch=scratch,
            report=Reporter(sink, build_id),
            story=story,
            log=log,
        )


@contextmanager
def scratch_directory(home: Home, build_id: str, ledger: BuildLedger) -> Iterator[Path]:
    """The build's private directory, entered in the ledger; gone at the end unless the build's machine is kept."""
    path = home.work(build_id)
    entry = ledger.enter("directory", path=str(path))
    ensure(path)
    try:
        yield path
    finally:
        if not ledger.kept:
            remove_tree(path)
            ledger.strike(entry)


@contextmanager
def workplace(home: Home, entered: Ledger) -> Iterator[Path]:
    """A directory for work beside builds, in the ledger: `bake sweep` removes it after a kill. The store is not collected meanwhile."""
    own_id = new_id()
    with shared(home.state, STORE_LOCK), entered.open(own_id) as ledger:
        with scratch_directory(home, own_id, ledger) as work:
            yield work


@contextmanager
def process_mark(build_id: str) -> Iterator[None]:
    """Mark every child of this process as the build's, so that `bake sweep` knows what a killed build left running."""
    before = os.environ.get(process.BUILD_ID_VARIABLE)
    os.environ[process.BUILD_ID_VARIABLE] = build_id
    try:
        yield
    finally:
        if before is None:
            del os.environ[process.BUILD_ID_VARIABLE]
        else:
            os.environ[process.BUILD_ID_VARIABLE] = before
