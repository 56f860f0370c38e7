"""The layers of one build: its machine starts from a layer, and is kept as further layers after its steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from baker.build import layer_history
from baker.build.job import Job
from baker.build.layer_disks import DISK, LayerClaims, MachineDisks
from baker.build.layer_start import Layering, started
from baker.build.started import StartedMachine, StepObserver
from baker.build.tracker import Tracker
from baker.core.disk_space import free
from baker.core.errors import BakeError, BuildError
from baker.core.model import NetworkPolicy
from baker.layers import policy
from baker.layers.store import LayerRecord, copy_key_files
from baker.machines.base import SupportsSnapshot
from baker.plan.plan import Plan, PlannedStep


@contextmanager
def layered_machine(job: Job, plan: Plan, network: NetworkPolicy, tracker: Tracker) -> Iterator[tuple[StartedMachine, StepObserver]]:
    """Start the build's machine; yields it and the observer that keeps layers. At the end only complete layers remain. `tracker`: its
    data is kept with each layer. BuildError when the build is to stop after a step, but the machine cannot be kept there."""
    store, builder, options = job.services.layers, job.builder, job.layer_options
    keeps = isinstance(builder, SupportsSnapshot) and builder.can_snapshot() and job.options.replay is None  # a rebuild keeps no layers
    with (
        closing(MachineDisks(job.id, job.ledger, store)) as disks,
        closing(LayerClaims(store)) as claims,
    ):
        snapshots = builder if isinstance(builder, SupportsSnapshot) and keeps else None
        layering = Layering(job, plan, network, store, snapshots, disks, claims)
        with closing(LayerKeeper(layering, tracker)) as keeper:
            if options.last and (reason := keeper.why_not(options.last, 0.0)):
                raise BuildError(f"there can be no layer after step {options.last}: {reason}", code="layer.not-kept")
            with started(layering) as start:
                yield start, keeper
    if options.last and store.find(layering.keys[options.last]) is None:
        raise BuildError(f"the machine after step {options.last} could not be kept", code="layer.not-kept")


class LayerKeeper(StepObserver):
    """Keeps the machine after a step if that saves time. A background thread turns the snapshot into a layer."""

    def __init__(self, layering: Layering, tracker: Tracker) -> None:
        self._layering, self._tracker = layering, tracker
        self._job, self._plan, self._store = layering.job, layering.plan, layering.store
        self._builder = layering.builder  # None also after a failure: then no more layers are kept in this build
        self._clock = self._job.services.clock
        self._in_use = ExitStack()  # leases on this build's layers against garbage collection
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="layer")
        self._pending: list[Future[None]] = []
        self._parent: str | None = None
        self._ran: dict[str, float] = {}
        self._since = self._clock.now()  # start of the work that the next layer would save
        self._cost = policy.FIRST_COST  # seconds that a layer costs: the machine's pause, then packing on this host

    def close(self) -> None:
        """Wait until all layers are complete."""
        self._pool.shutdown(wait=True)
        self._in_use.close()

    # -- observing ----------------------------------------------------------------------------------------------------

    def begin(self, start: StartedMachine) -> None:
        """Take over the history of the layer that the machine was restored from, or keep a machine that has just booted."""
        if start.layer is None:
            self._consider(start, 0, "boot")
        else:
            self._parent, self._ran = start.layer.id, dict(start.layer.record.ran)
            self._since = self._clock.now()

    def after_step(self, start: StartedMachine, planned: PlannedStep) -> None:
        """Keep the machine as it is now, if that saves time."""
        self._ran[planned.key] = self._job.events.steps[planned.index].ran
        self._consider(start, planned.index, planned.name)

    def finish(self, start: StartedMachine) -> None:
        """Wait until all layers are complete: only then are the machine's backing files where its disk refers to them."""
        for done in self._pending:
            done.result()

    # -- keeping ------------------------------------------------------------------------------------------------------

    def why_not(self, depth: int, work: float) -> str:
        """Why the machine after `depth` steps, `work` seconds after the last layer, is not kept; "" if it is kept."""
        if self._job.options.replay is not None:
            return "a rebuild keeps no layers"
        if self._builder is None:
            return "machines of this connection cannot be kept"
        reason = policy.never_kept(self._plan, depth)
        if reason:
            return reason
        if free(self._store.root) < policy.ROOM * self._plan.machine_spec.memory:
            return "there is too little space on the disk"
        if depth and self._plan.steps[depth - 1].step.cache.keep:
            return ""
        if depth == self._job.layer_options.last or self._failed_last_time(depth + 1) or policy.pays(work, self._cost):
            return ""
        return f"{work:.1f} s of work are less than a layer costs"

    def _failed_last_time(self, number: int) -> bool:
        """Whether this template's last build failed in step `number`, so that the step is likely to change."""
        before = self._job.services.catalog.last_planned(self._job.template.name)
        return before is not None and any(
            step.status == "failed" and step.index == number and step.name == planned.name
            for step in before.steps
            for planned in self._plan.steps[number - 1 : number]
        )

    def _consider(self, start: StartedMachine, depth: int, name: str) -> None:
        claims, keys = self._layering.claims, self._layering.keys
        reason = self.why_not(depth, self._clock.now() - self._since)
        if reason:
            self._job.report.debug(f"not kept after {name}: {reason}")
        else:
            try:
                self._keep(start, depth, name)
            except (BakeError, OSError) as error:
                reason, self._builder = str(error), None
                self._job.report.warn(f"the machine cannot be kept after {name}, so this build keeps no more layers: {error}")
        if reason:
            claims.release(keys[depth])  # a build that waits for this layer must make it
        if depth < len(self._plan.steps) and self._builder is not None:
            claims.claim_if_free(keys[depth + 1])

    def _keep(self, start: StartedMachine, depth: int, name: str) -> None:
        assert self._builder is not None
        job, disks, began = self._job, self._layering.disks, self._clock.now()
        key, directory = self._layering.keys[depth], disks.current
        final = self._store.name(key, job.id)
        self._builder.take_snapshot(start.machine, directory, disks.next() / DISK, f"../{final}/{DISK}")
        disks.link(directory, final)
        copy_key_files(directory, start.identity)
        if self._layering.network.dump is not None:
            job.artifacts.add_egress(start.machine.egress())
        layer_history.save(directory, job.artifacts.snapshot(), self._tracker.changed)
        paused = self._clock.now() - began
        record = LayerRecord(
            key=key,
            parent=self._parent,
            step=depth,
            name=name,
            template=job.template.name,
            build=job.id,
            made=self._clock.date(),
            work=round(began - self._since, 3),
            cost=round(paused, 3),
            ran=dict(self._ran),
            blobs=self._plan.source.chain,
            hostname=start.identity.hostname,
            username=start.identity.username,
            builder=job.template.builder.kind,
        )
        job.report.debug(f"kept after {name}: the machine was paused for {paused:.1f} s")
        self._pending.append(self._pool.submit(self._commit, self._builder, directory, record, self._layering.claims.keys))
        self._parent, self._since = final, self._clock.now()

    def _commit(self, builder: SupportsSnapshot, directory: Path, record: LayerRecord, claimed: tuple[str, ...]) -> None:
        """Complete a layer and release the claims on it. Runs in the background thread."""
        began = time.monotonic()  # this thread's own time, because the build's clock measures its steps
        try:
            builder.finish_snapshot(directory)
            self._cost = record.cost + time.monotonic() - began
            layer = self._store.commit(directory, record)
            self._layering.disks.release(directory)
            self._in_use.enter_context(self._store.using(layer))
        except (BakeError, OSError) as error:
            self._builder = None
            self._layering.disks.rename(directory, self._store.root / self._store.name(record.key, record.build))
            self._job.report.warn(f"the layer after {record.name} is not kept: {error}")
        for key in claimed:
            self._layering.claims.release(key)
