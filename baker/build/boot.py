"""A machine of a build, from launch to an open connection; and what is done to it when its build fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from baker.build.job import Job
from baker.core.errors import BootError
from baker.core.home import ensure
from baker.core.model import OPEN, Identity, MachineSpec, Media, NetworkPolicy
from baker.machines.base import Launch, Machine
from baker.machines.identity import make_identity
from baker.machines.ssh.communicator import Communicator

DEFAULT_USERNAME = "root"


@contextmanager
def launched(
    job: Job,
    name: str,
    media: Media,
    shape: MachineSpec,
    source_username: str | None,
    *,
    hostname: str = "",
    overlay: Path | None = None,
    clock: int | None = None,
    gate: NetworkPolicy = OPEN,
) -> Iterator[tuple[Machine, Identity]]:
    """A machine that boots from `media`, with a new identity; its console log is kept whatever happens. `hostname`: the template's
    name if left out. `clock`: what it takes for the time, seconds since 1970. `gate`: what it may reach."""
    directory = ensure(job.scratch / name)
    username = job.template.communicator.ssh_username or source_username or DEFAULT_USERNAME
    identity = make_identity(directory, hostname or job.template.name, username)
    request = Launch(
        name, media, shape, identity, directory, job.ledger, job.report, overlay=overlay, image=job.image, clock=clock, gate=gate
    )  # fmt: skip
    with ExitStack() as stack:
        with job.report.stage("launch", name):
            machine = stack.enter_context(job.builder.launch(request))
        stack.callback(lambda: keep_console(job, name, machine.console_log))
        yield machine, identity


@contextmanager
def connected(job: Job, machine: Machine, identity: Identity) -> Iterator[Communicator]:
    """The connection to a machine that has been launched, as soon as it answers."""
    timeout = job.template.communicator.ssh_timeout
    directory = job.scratch / machine.name
    with ExitStack() as stack:
        with job.report.stage("boot", machine.name):
            connection = job.services.connect(machine.endpoint, identity, machine, directory, report=job.report, timeout=timeout)
            try:
                communicator = stack.enter_context(connection)
            except BootError as error:
                for line in error.console:
                    job.report.output(line, stream="console")
                raise
        yield communicator


@contextmanager
def running(job: Job, name: str, media: Media, shape: MachineSpec, source_username: str | None) -> Iterator[tuple[Machine, Communicator]]:
    """A machine that is up and answers."""
    with launched(job, name, media, shape, source_username) as (machine, identity):
        with connected(job, machine, identity) as communicator:
            yield machine, communicator


def keep_console(job: Job, name: str, console_log: Path) -> None:
    """Keep what the guest wrote to its serial console: the launch's directory goes away with the machine."""
    if console_log.exists():
        (job.scratch / f"{name}.console.log").write_bytes(console_log.read_bytes())
