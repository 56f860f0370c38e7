"""One build while it runs: its id, its scratch directory, its ledger, its log, and the story that becomes its record."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from baker.build.services import Services
from baker.core.events import Event, Planned, Reporter, StageFinished, StepFinished, StepStarted, Tee, TestFinished
from baker.core.home import check_writable
from baker.core.host_facts import now
from baker.core.ledger import BuildLedger
from baker.core.model import TestOutcome
from baker.core.workspace import STORE_LEASE, process_mark, scratch_directory
from baker.machines.base import Builder, ImageName
from baker.plan.requests import BuildOptions
from baker.plan.step_range import LayerOptions, layer_options
from baker.render.logfile import LogFile
from baker.render.mask import Masked
from baker.template.model import Template

if TYPE_CHECKING:
    pass


class BuildEvents:
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
    options: BuildOptions
    services: Services
    builder: Builder
    ledger: BuildLedger
    scratch: Path
    report: Reporter
    layer_options: LayerOptions
    story: BuildEvents
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


@contextmanager
def open_job(template: Template, options: BuildOptions, services: Services, build_id: str) -> Iterator[Job]:
    """Everything that one build needs, given back at its end in reverse order."""
    check_writable(services.home.data)
    story = BuildEvents()
    with ExitStack() as stack:
        stack.enter_context(process_mark(build_id))
        stack.enter_context(services.leases.shared(STORE_LEASE))
        ledger = stack.enter_context(services.ledger.open(build_id))
        scratch = stack.enter_context(scratch_directory(services.home, build_id, ledger))
        log = stack.enter_context(LogFile(scratch / "build.log"))
        sink = Masked(Tee(services.sink, story, log), template.secrets)
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
            story=story,
            log=log,
        )
