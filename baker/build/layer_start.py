"""Starts the build's machine: from the deepest layer that can be restored, else from the source.

Builds that share steps run them once: a build claims the key of the first layer that it will make. If another build has claimed it, it
waits for that build and then looks for the layer again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime

from baker.build import layer_history
from baker.build.boot import DEFAULT_USERNAME, build_request, launched, restored
from baker.build.job import Job
from baker.build.layer_disks import DISK, LayerClaims, MachineDisks
from baker.build.started import StartedMachine
from baker.core.errors import BakeError, BootError, LayerError, NotFoundError
from baker.core.events import StepFinished
from baker.core.home import ensure
from baker.core.model import NetworkPolicy
from baker.layers import policy
from baker.layers.policy import Candidate
from baker.layers.store import LayerStore
from baker.machines.base import Launch, SupportsSnapshot
from baker.machines.ssh.communicator import Disconnected, GuestTimeout
from baker.plan.plan import Plan

RESTORE_SECONDS = 180.0  # timeout for a restored machine to answer, on a busy host
NAME = "build"  # of the machine
# stops, until the next boot, the services that would set the clock to the real time
STOP_CLOCKS = "systemctl stop systemd-timesyncd chrony chronyd ntp ntpd ntpsec 2>/dev/null || true"
HOSTNAME = "bake"  # of every build machine, so that templates with different names share layers


@dataclass(frozen=True)
class Layering:
    """The context of a build for starting from a layer and for keeping layers. `builder` is None where machines cannot be kept."""

    job: Job
    plan: Plan
    network: NetworkPolicy
    store: LayerStore
    builder: SupportsSnapshot | None
    disks: MachineDisks
    claims: LayerClaims

    @property
    def keys(self) -> tuple[str, ...]:
        """The key of the machine after each step. The first is the key of the booted machine."""
        return policy.keys(self.plan)

    def candidates(self) -> list[Candidate]:
        """The layers that this build may start from, deepest first."""
        if self.builder is None:
            return []
        username = self.job.template.communicator.ssh_username or self.plan.source.ssh_username or DEFAULT_USERNAME
        return list(
            policy.candidates(self.plan, self.job.layer_options, self.store.find, now=self.job.services.clock.date(), username=username)
        )


@contextmanager
def started(layering: Layering) -> Iterator[StartedMachine]:
    """Start the machine and connect to it. It ends with the block."""
    _claim_first_layer(layering)
    with ExitStack() as stack:
        yield _from_layer(layering, stack) or _booted(layering, stack)


def _claim_first_layer(layering: Layering) -> None:
    """Claim the layer that this build would make first, or wait until another build has made it."""
    if layering.builder is None or not layering.job.layer_options.use:
        return
    while True:
        depth = _deepest(layering)
        if depth == len(layering.plan.steps):
            return
        key = layering.keys[depth + 1]
        layering.claims.wait(key, lambda: layering.job.report.info("another build is making the next layer: waiting for it"))
        if _deepest(layering) == depth:
            return
        layering.claims.release(key)  # the build that had it has made the layer


def _deepest(layering: Layering) -> int:
    return max((candidate.depth for candidate in layering.candidates()), default=-1)


def _from_layer(layering: Layering, stack: ExitStack) -> StartedMachine | None:
    report = layering.job.report
    for candidate in layering.candidates():
        name = candidate.layer.record.name
        attempt = ExitStack()
        try:
            start = _restored(layering, candidate, attempt)
        except (BakeError, Disconnected, GuestTimeout) as error:
            attempt.close()
            reason = error.message if isinstance(error, BakeError) else str(error)
            if isinstance(error, (LayerError, BootError)):
                layering.store.mark_broken(candidate.layer, reason)
            report.warn(f"the layer after {name} cannot be restored ({reason}): an earlier one is used instead")
            continue
        except BaseException:
            attempt.close()
            raise
        stack.push(attempt)
        _report_cached(layering, candidate)
        return start
    return None


def _restored(layering: Layering, candidate: Candidate, stack: ExitStack) -> StartedMachine:
    job, plan, layer = layering.job, layering.plan, candidate.layer
    assert layering.builder is not None
    if not stack.enter_context(layering.store.using(layer)):
        raise NotFoundError("the layer has just been removed", code="layer.not-found")
    scratch = ensure(job.scratch / NAME)
    identity = layer.identity(scratch)
    overlay = layering.disks.next() / DISK
    request = Launch(
        NAME,
        plan.source.disk,
        plan.machine_spec,
        identity,
        scratch,
        job.ledger,
        job.report,
        overlay=overlay,
        network_policy=layering.network,
    )
    machine = stack.enter_context(
        restored(
            layering.builder,
            request,
            layer,
            job.services.connect,
            timeout=RESTORE_SECONDS,
            set_clock=plan.machine_spec.clock is None,
            artifacts=job.artifacts,
        )
    )
    changed = layer_history.load(layer.directory, job.scratch, job.artifacts)
    return StartedMachine(
        machine.machine,
        identity,
        machine.communicator,
        machine.connection,
        layering.disks.readable,
        depth=candidate.depth,
        layer=layer,
        changed_inodes=changed,
    )


def _report_cached(layering: Layering, candidate: Candidate) -> None:
    job = layering.job
    for planned in layering.plan.steps[: candidate.depth]:
        ran = candidate.layer.record.ran.get(planned.key, 0.0)
        job.report.sink.emit(
            StepFinished(build=job.id, index=planned.index, step=planned.name, seconds=0.0, ok=True, cached=True, ran=ran)
        )  # fmt: skip


def _booted(layering: Layering, stack: ExitStack) -> StartedMachine:
    job, plan = layering.job, layering.plan
    recorded = int(datetime.fromisoformat(job.options.clock).timestamp()) if job.options.clock else None
    clock = recorded if plan.machine_spec.clock is None else plan.machine_spec.clock
    request = build_request(
        job,
        NAME,
        plan.source.media,
        plan.machine_spec,
        plan.source.ssh_username,
        hostname=HOSTNAME,
        overlay=layering.disks.next() / DISK if layering.builder else None,
        clock=clock,
        network_policy=layering.network,
    )
    timeout = job.template.communicator.ssh_timeout
    machine = stack.enter_context(launched(job.builder, request, job.services.connect, timeout=timeout, artifacts=job.artifacts))
    if clock is not None:
        machine.communicator.run(STOP_CLOCKS)
    if plan.machine_spec.clock is not None:  # systemd moves a clock that is before its own build date to that date
        machine.communicator.run(f"date -u -s @{plan.machine_spec.clock} >/dev/null")
    return StartedMachine(machine.machine, request.identity, machine.communicator, machine.connection, layering.disks.readable)
