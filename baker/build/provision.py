"""Runs the build's machine: starts it, provisions it step by step, seals it, powers it off and captures it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from baker.artifacts import egress
from baker.build.boot import POWER_OFF, power_off
from baker.build.change_tracking import ChangedInodes
from baker.build.downloads import Downloads, network_of, shared_downloads
from baker.build.execute import execute
from baker.build.inspect import list_in_guest, readable_offline
from baker.build.job import Job
from baker.build.layers import layered_machine
from baker.build.seal import seal
from baker.build.services import Nobody
from baker.build.started import StartedMachine, StepObserver
from baker.build.step_environment import repeatable
from baker.build.tracker import Tracker
from baker.build.values import Captured, GuestListing
from baker.core.errors import StepError
from baker.core.events import StepFinished, StepStarted
from baker.core.model import Disk
from baker.core.resources import Resources
from baker.disks import qemuimg
from baker.machines.base import Machine
from baker.machines.ssh.communicator import Communicator, Disconnected, GuestTimeout
from baker.plan.plan import Plan, PlannedStep

FINISH = f"""
kind=$(findmnt -no FSTYPE / 2>/dev/null || stat -f -c %T /)
echo "$kind"
case "$kind" in ext[234] | ext2/ext3*) {POWER_OFF} ;; esac
"""
FINISH_SECONDS = 30.0
CAPTURED = "captured.qcow2"  # below a build's scratch directory
NOBODY = "only the last of several builds can ask: build this one alone, or use --on-error abort to inspect its machine"


@dataclass(frozen=True)
class BuildMachine:
    """The build's machine, with the environment (`downloads`) and the observers of its steps."""

    start: StartedMachine
    downloads: Downloads
    tracker: Tracker
    observers: tuple[StepObserver, ...]


@contextmanager
def build_machine(job: Job, plan: Plan) -> Iterator[BuildMachine]:
    """The build's machine, up and answering, from a layer or from the source."""
    tracker = Tracker(job.builder if job.options.replay is None else None, job.report)
    with (
        shared_downloads(job) as downloads,
        layered_machine(job, plan, downloads.network, tracker) as (start, layers),
    ):
        yield BuildMachine(start, downloads, tracker, (tracker, layers))


def provision_and_capture(job: Job, plan: Plan, products: Resources) -> Captured:
    """Launch or restore the build's machine, provision it, seal it, and capture its disk or AMI. `products` takes the resources of the
    image that are not on this host. No machine runs where there is no step and the source is a disk."""
    if not plan.steps and isinstance(plan.source.media, Disk):
        return _capture_source(job, plan)
    with build_machine(job, plan) as build:
        with build.start.connection:
            run_steps(job, build, plan.steps[build.start.depth :])
            listing = _seal_and_power_off(job, plan, build.start)
        return _capture(job, build, listing, products)


def provision_until(job: Job, plan: Plan) -> None:
    """Run the steps up to the one that the build stops after, and keep the machine as a layer. BuildError when that fails."""
    last = job.layer_options.last or len(plan.steps)
    with build_machine(job, plan) as build, build.start.connection:
        run_steps(job, build, plan.steps[build.start.depth : last])


def run_steps(job: Job, build: BuildMachine, steps: Sequence[PlannedStep]) -> None:
    """Run steps on the machine, observed. StepError when one fails."""
    start = build.start
    with job.report.stage("provision"):
        for observer in build.observers:
            observer.begin(start)
        booted = True
        for planned in steps:
            _run_step(job, planned, start, build.downloads.environment(start.machine, start.communicator, booted))
            booted = bool(getattr(planned.step.config, "expect_disconnect", False))
            for observer in build.observers:
                observer.after_step(start, planned)


def _run_step(job: Job, planned: PlannedStep, start: StartedMachine, env: Mapping[str, str]) -> None:
    """Run a step. When it fails, follow `on_error` of the command line, the step or the template, in this order."""
    policy = job.options.on_error or planned.step.on_error or job.template.on_error
    communicator = start.communicator
    while True:
        try:
            _execute(job, planned, communicator, env)
            return
        except StepError as error:
            if network_of(job) == "closed":
                error.add_note("the network of this machine is closed: only HTTP and HTTPS through bake's proxy are possible")
            ssh = ("ssh", "-F", str(communicator.ssh_config), communicator.host)
            decision = "abort" if policy == "abort" else "cleanup"
            if policy in ("ask", "shell"):
                if isinstance(job.services.interaction, Nobody):
                    job.report.warn(f"on-error is {policy}, but this build cannot ask: cleaning up", hint=NOBODY)
                decision = job.services.interaction.on_failure(policy, error, ssh)
            if decision == "retry":
                continue
            if decision == "abort":
                start.machine.keep()
                job.ledger.keep(f"step {planned.name} failed")
                error.add_note(f"the machine is left running: {' '.join(ssh)}\nbake sweep --kept ends it")
            raise


def _execute(job: Job, planned: PlannedStep, communicator: Communicator, env: Mapping[str, str]) -> None:
    """Run one step once, and report its start and end."""
    sink, clock, total = job.report.sink, job.services.clock, len(job.template.provisioners)
    started, ran = clock.now(), clock.date()
    sink.emit(StepStarted(build=job.id, index=planned.index, total=total, step=planned.name, kind=planned.kind))

    def finished(ok: bool, exit_code: int | None, attempts: int) -> None:
        sink.emit(
            StepFinished(
                build=job.id,
                index=planned.index,
                step=planned.name,
                seconds=clock.now() - started,
                ok=ok,
                exit_code=exit_code,
                attempts=attempts,
                ran=ran,
            )
        )

    try:
        result = execute(
            planned.step,
            communicator,
            job.report,
            scratch=job.scratch,
            variables={name: variable.value for name, variable in job.template.variables.items()},
            env={**repeatable(job.template.epoch.seconds), **env},
            mask=job.template.secrets.mask,
            clock=clock,
        )
    except StepError as error:
        finished(False, error.exit_code_of_step, planned.step.retries + 1)
        raise
    job.artifacts.add_ansible_content(result.ansible_content)
    finished(True, result.exit_code, result.attempts)


def _seal_and_power_off(job: Job, plan: Plan, start: StartedMachine) -> GuestListing | None:
    """Seal the guest and power it off; the connection may end with it. Files that the host cannot read are listed before: those of a file
    system that it does not know, or of a machine whose disk is not on this host."""
    communicator = start.communicator
    with job.report.stage("seal"):
        seal(communicator, start.identity, job.report)
        if isinstance(plan.source.media, Disk):
            try:
                kind = communicator.run(FINISH, timeout=FINISH_SECONDS).stdout.partition("\n")[0]
            except (Disconnected, GuestTimeout):
                return None
            if readable_offline(kind):
                return None
        listing = list_in_guest(communicator, job.scratch)
        power_off(communicator, FINISH_SECONDS)
        return listing


def _capture(job: Job, build: BuildMachine, listing: GuestListing | None, products: Resources) -> Captured:
    """Wait until the machine is off, and capture its disk or AMI."""
    machine = build.start.machine
    with job.report.stage("capture"):
        machine.shutdown(job.template.communicator.shutdown_timeout)
        for observer in build.observers:
            observer.finish(build.start)
        _report_egress(job, machine)
        media = job.builder.capture(machine, job.scratch / CAPTURED, products)
    return Captured(media, machine.facts, listing, changed_inodes=build.tracker.changed)


def _capture_source(job: Job, plan: Plan) -> Captured:
    """The image of a template without steps: its source, in the size that the template asks for."""
    with job.report.stage("capture"):
        size = plan.machine_spec.disk_size or plan.source.disk.virtual_size
        disk = qemuimg.create_overlay(plan.source.disk, job.scratch / CAPTURED, size=size)
        return Captured(disk, changed_inodes=ChangedInodes())


def _report_egress(job: Job, machine: Machine) -> None:
    """Collect the connections that bypassed the proxy, where the template asks for that."""
    if network_of(job) == "report":
        job.artifacts.add_egress(machine.egress())
        if found := job.artifacts.snapshot().egress:
            job.report.warn(
                f"the machine connected to addresses that are not recorded: {egress.summary(found)}", hint="network: closed forbids it"
            )
