"""The build machine's life: launch, provision step by step, seal, shut down, capture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from baker.artifacts import ansible_content, egress
from baker.build import network_report
from baker.build.change_tracking import ChangedPaths
from baker.build.downloads import Downloads, network_of, shared_downloads
from baker.build.execute import execute
from baker.build.inspect import list_in_guest, readable_offline
from baker.build.job import Job
from baker.build.layers import Layering, Started
from baker.build.seal import seal
from baker.build.services import Nobody
from baker.build.step_environment import repeatable
from baker.build.values import Captured, GuestListing
from baker.core.errors import BuildError, StepError
from baker.core.events import StepFinished, StepStarted
from baker.core.model import Disk
from baker.core.resources import Resources
from baker.disks import qemuimg
from baker.layers import policy
from baker.machines.ssh.communicator import Communicator, Disconnected, GuestTimeout
from baker.plan.plan import Plan, PlannedStep

# Asked from inside: a small guest may have nothing that listens to the power button.
POWER_OFF = "systemctl poweroff --no-block 2>/dev/null || poweroff 2>/dev/null || shutdown -P now"
FINISH = f"""
kind=$(findmnt -no FSTYPE / 2>/dev/null || stat -f -c %T /)
echo "$kind"
case "$kind" in ext[234] | ext2/ext3*) {POWER_OFF} ;; esac
"""
FINISH_SECONDS = 30.0
NOBODY = "of several builds only the last one can ask: build it alone, or use --on-error abort to look at its machine"


def provision_and_capture(job: Job, plan: Plan, products: Resources) -> Captured:
    """Make the image's disk, or AMI. What there is of it outside of this host is held by `products`.

    Without steps no machine runs where that is a disk: the image is the source's, in the size asked for."""
    destination = job.scratch / "captured.qcow2"
    if not plan.steps and isinstance(plan.source.media, Disk):
        with job.report.stage("capture"):
            size = plan.shape.disk_size or plan.source.disk.virtual_size
            return Captured(qemuimg.create_overlay(plan.source.disk, destination, size=size), touched=ChangedPaths())
    with Layering(job, plan, job.layer_options) as layers, shared_downloads(job) as downloads, layers.started(downloads.gate) as start:
        listing = _work(job, plan, start, layers, downloads)
        with job.report.stage("capture"):
            start.machine.shutdown(job.template.communicator.shutdown_timeout)
            layers.settle()
            _tell_egress(job, start)
            media = job.builder.capture(start.machine, destination, products)
        return Captured(media, start.machine.facts, listing, touched=layers.tracker.touched)


def _tell_egress(job: Job, start: Started) -> None:
    """Note what the machine reached past the proxy, where that is asked for."""
    if network_of(job) == "report":
        found = network_report.note(start.machine, job.scratch, job.scratch / egress.NAME)
        if found:
            job.report.warn(f"the machine reached past what is recorded: {egress.told(found)}", hint="network: closed forbids it")


def provision_until(job: Job, plan: Plan) -> None:
    """Carry out the steps up to the one that the build is to stop after, and keep the machine as it is then."""
    last = job.layer_options.last or len(plan.steps)
    with Layering(job, plan, job.layer_options) as layers:
        layers.check_keeping(last)
        with shared_downloads(job) as downloads, layers.started(downloads.gate) as start, start.connection:
            carry_out(job, start, layers, plan.steps[start.depth : last], downloads)
    if layers.store.find(policy.keys(plan)[last]) is None:
        raise BuildError(f"the machine after step {last} could not be kept")


def _work(job: Job, plan: Plan, start: Started, layers: Layering, downloads: Downloads) -> GuestListing | None:
    """Everything over the connection; ends with the guest on its way down."""
    with start.connection:
        carry_out(job, start, layers, plan.steps[start.depth :], downloads)
        with job.report.stage("seal"):
            seal(start.communicator, start.identity, job.report)
            return _finish(job, start.communicator, local=isinstance(plan.source.media, Disk))


def carry_out(job: Job, start: Started, layers: Layering | None, steps: Sequence[PlannedStep], downloads: Downloads) -> None:
    """Carry out steps on the machine, with layers in between where there are to be any."""
    with job.report.stage("provision"):
        booted = True
        if layers:
            layers.begin(start)
        for planned in steps:
            _step_or_policy(job, planned, start, downloads.environment(start.machine, start.communicator, booted))
            booted = bool(getattr(planned.step.config, "expect_disconnect", False))
            if layers:
                layers.after(start, planned.index)


def _step_or_policy(job: Job, planned: PlannedStep, start: Started, env: Mapping[str, str]) -> None:
    """Carry out a step; when it fails do as `on_error` says (command line, step, template, in this order)."""
    policy = job.options.on_error or planned.step.on_error or job.template.on_error
    communicator = start.communicator
    while True:
        try:
            _step(job, planned, communicator, env)
            return
        except StepError as error:
            if network_of(job) == "closed":
                error.add_note("the network of this machine is closed: HTTP and HTTPS through bake's proxy go out, nothing else")
            ssh = ("ssh", "-F", str(communicator.ssh_config), communicator.host)
            decision = "abort" if policy == "abort" else "cleanup"
            if policy in ("ask", "shell"):
                if isinstance(job.services.interaction, Nobody):
                    job.report.warn(f"on-error is {policy}, but this build has nobody to ask: cleaning up", hint=NOBODY)
                decision = job.services.interaction.on_failure(policy, error, ssh)
            if decision == "retry":
                continue
            if decision == "abort":
                start.machine.keep()
                job.ledger.keep(f"step {planned.name} failed")
                error.add_note(f"the machine is left running: {' '.join(ssh)}\nbake sweep --kept ends it")
            raise


def _step(job: Job, planned: PlannedStep, communicator: Communicator, env: Mapping[str, str]) -> None:
    """Carry out one step and report its start and end."""
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
    if result.brought:
        ansible_content.note(job.scratch, result.brought)
    finished(True, result.exit_code, result.attempts)


def _finish(job: Job, communicator: Communicator, *, local: bool) -> GuestListing | None:
    """Send the guest down. What the host cannot read (a strange file system, or no disk of its own: `local`) is listed before that. The
    connection may go down with the guest."""
    if local:
        try:
            kind = communicator.run(FINISH, timeout=FINISH_SECONDS).stdout.partition("\n")[0]
        except (Disconnected, GuestTimeout):
            return None
        if readable_offline(kind):
            return None
    listing = list_in_guest(communicator, job.scratch)
    try:
        communicator.run(POWER_OFF, timeout=FINISH_SECONDS)
    except (Disconnected, GuestTimeout):
        pass
    return listing
