"""The build machine's life: launch, provision step by step, seal, shut down, capture."""

from __future__ import annotations

import time

from baker.builders.base import Machine
from baker.communicator.base import Communicator, Disconnected, GuestTimeout
from baker.disks import qemuimg
from baker.errors import StepError
from baker.events import StepFinished, StepStarted
from baker.inspection import GuestListing, list_in_guest, readable_offline
from baker.job import Captured, Job
from baker.machine import connected, launched
from baker.model import Identity
from baker.plan import Plan, PlannedStep
from baker.provision.execute import execute
from baker.seal import seal

POWER_OFF = "systemctl poweroff --no-block 2>/dev/null || poweroff 2>/dev/null || shutdown -P now"


def provision_and_capture(job: Job, plan: Plan) -> Captured:
    """Make the image's disk. Without steps no machine runs: the image is the source's disk, in the size asked for."""
    destination = job.scratch / "captured.qcow2"
    if not plan.steps:
        with job.report.stage("capture"):
            size = plan.shape.disk_size or plan.source.disk.virtual_size
            return Captured(qemuimg.create_overlay(plan.source.disk, destination, size=size))
    with launched(job, "build", plan.source.disk, plan.shape, plan.source.ssh_username) as (machine, identity):
        listing = _work(job, plan, machine, identity)
        with job.report.stage("capture"):
            machine.shutdown(job.template.communicator.shutdown_timeout)
            disk = job.builder.capture(machine, destination)
        return Captured(disk, machine.facts, listing)


def _work(job: Job, plan: Plan, machine: Machine, identity: Identity) -> GuestListing | None:
    """Everything over the connection; ends with the guest on its way down."""
    with connected(job, machine, identity) as communicator:
        with job.report.stage("provision"):
            for planned in plan.steps:
                _step_or_policy(job, plan, planned, machine, communicator)
        with job.report.stage("seal"):
            seal(communicator, identity, job.report)
            listing = None if readable_offline(communicator) else list_in_guest(communicator, job.scratch)
            _power_off(communicator)
        return listing


def _step_or_policy(job: Job, plan: Plan, planned: PlannedStep, machine: Machine, communicator: Communicator) -> None:
    """Carry out a step; when it fails do as `on_error` says (command line, step, template, in this order)."""
    policy = job.options.on_error or planned.step.on_error or job.template.on_error
    while True:
        try:
            _step(job, plan, planned, communicator)
            return
        except StepError as error:
            ssh = ("ssh", "-F", str(communicator.ssh_config), communicator.host)
            decision = "abort" if policy == "abort" else "cleanup"
            if policy in ("ask", "shell"):
                decision = job.world.interaction.on_failure(policy, error, ssh)
            if decision == "retry":
                continue
            if decision == "abort":
                machine.keep()
                job.ledger.keep(f"step {planned.name} failed")
                error.add_note(f"the machine is left running: {' '.join(ssh)}\nbake sweep --kept ends it")
            raise


def _step(job: Job, plan: Plan, planned: PlannedStep, communicator: Communicator) -> None:
    """Carry out one step and report its start and end."""
    sink, started = job.report.sink, time.monotonic()
    sink.emit(StepStarted(build=job.id, index=planned.index, total=len(plan.steps), step=planned.name, kind=planned.kind))

    def finished(ok: bool, exit_code: int | None, attempts: int) -> None:
        seconds = time.monotonic() - started
        sink.emit(
            StepFinished(
                build=job.id, index=planned.index, step=planned.name, seconds=seconds, ok=ok, exit_code=exit_code, attempts=attempts
            )
        )

    try:
        result = execute(
            planned.step,
            communicator,
            job.report,
            scratch=job.scratch,
            variables={name: variable.value for name, variable in job.template.variables.items()},
            mask=job.template.secrets.mask,
        )
    except StepError as error:
        finished(False, error.exit_code_of_step, planned.step.retries + 1)
        raise
    finished(True, result.exit_code, result.attempts)


def _power_off(communicator: Communicator) -> None:
    """Ask from inside: a small guest may have nothing that listens to the power button. The connection may go down with it."""
    try:
        communicator.run(POWER_OFF, timeout=30)
    except (Disconnected, GuestTimeout):
        pass
