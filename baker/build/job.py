"""One build while it runs: its id, its scratch directory, its ledger, its log, and the events that become its record."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from baker.build.artifacts import ArtifactCollector
from baker.build.services import Services
from baker.core.events import Event, Planned, Reporter, StageFinished, StepFinished, Tee, TestFinished
from baker.core.home import check_writable
from baker.core.host_facts import now
from baker.core.ledger import BuildLedger
from baker.core.model import TestOutcome
from baker.core.workspace import STORE_LEASE, process_mark, scratch_directory
from baker.machines.base import Builder, ImageName
from baker.plan.requests import BuildOptions
from baker.plan.step_range import LayerOptions, layer_options
from baker.render.logfile import LogFile
from baker.render.mask import MaskingSink
from baker.template.model import Template


class BuildEvents:
    """A sink that collects the parts of the record that events have: timings, steps, tests, plan."""

    def __init__(self) -> None:
        self.timings: dict[str, float] = {}
        self.steps: dict[int, StepFinished] = {}
        self.tests: list[TestOutcome] = []
        self.planned: Planned | None = None

    def emit(self, event: Event) -> None:
        match event:
            case StageFinished():
                self.timings[event.stage] = round(self.timings.get(event.stage, 0.0) + event.seconds, 3)
            case Planned():
                self.planned = event
            case StepFinished():
                self.steps[event.index] = event
            case TestFinished():
                self.tests.append(TestOutcome(event.name, event.outcome, event.seconds, event.message))


@dataclass(frozen=True)
class Job:
    """One build that is running."""

    id: str
    template: Template
    options: BuildOptions
    services: Services
    builder: Builder
    ledger: BuildLedger
    scratch: Path
    report: Reporter
    layer_options: LayerOptions
    events: BuildEvents
    log: LogFile
    artifacts: ArtifactCollector
    started: float = field(default_factory=time.monotonic)
    started_at: str = field(default_factory=now)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def image(self) -> ImageName:
        """The name that the image will have."""
        template = self.template
        return ImageName(template.name, template.version, template.description, dict(template.labels))


@contextmanager
def open_job(template: Template, options: BuildOptions, services: Services, build_id: str) -> Iterator[Job]:
    """Open the resources of one build. They are released in reverse order when the build ends."""
    check_writable(services.home.data)
    events = BuildEvents()
    with ExitStack() as stack:
        stack.enter_context(process_mark(build_id))
        stack.enter_context(services.leases.shared(STORE_LEASE))
        ledger = stack.enter_context(services.ledger.open(build_id))
        scratch = stack.enter_context(scratch_directory(services.home, build_id, ledger))
        log = stack.enter_context(LogFile(scratch / "build.log"))
        sink = MaskingSink(Tee(services.sink, events, log), template.secrets)
        yield Job(
            id=build_id,
            template=template,
            options=options,
            services=services,
            builder=services.builder(template.builder, options.uri),
            ledger=ledger,
            scratch=scratch,
            report=Reporter(sink, build_id),
            layer_options=layer_options(template, options),
            events=events,
            log=log,
            artifacts=ArtifactCollector(scratch, log.path),
        )
