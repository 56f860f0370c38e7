"""The layers of one build: which one its machine goes on from, and which are kept on the way.

Builds that share steps make them once: whoever is to carry out a step holds a lock on its key until the machine after it is kept (or
a later one is), and who wants to carry out the same step waits for that and then looks for the layer.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from baker.artifacts import ansible_content, egress
from baker.build import network_report
from baker.build.boot import DEFAULT_USERNAME, connected, keep_console, launched
from baker.build.change_tracking import Tracker
from baker.build.downloads import EARLIER, RECORD
from baker.build.job import Job
from baker.core.disk_space import free
from baker.core.errors import BakeError, BootError, BuildError, HostError, LayerError
from baker.core.events import StepFinished
from baker.core.home import ensure
from baker.core.ledger import Entry
from baker.core.locks import exclusive, try_exclusive
from baker.core.model import OPEN, Disk, Identity, NetworkPolicy
from baker.core.user_namespace import remove_tree
from baker.layers import policy
from baker.layers.policy import Candidate
from baker.layers.resume import wake
from baker.layers.store import LayerRecord, LayerStore, with_key_files
from baker.machines.base import Launch, Machine, SupportsSnapshot
from baker.machines.ssh.communicator import Communicator, Disconnected, GuestTimeout
from baker.plan.plan import Plan
from baker.plan.step_range import LayerOptions
from baker.proxy.recording import join

RESTORE_SECONDS = 180.0  # for a restored machine to answer, on a host that is busy with others
NAME = "build"  # of the machine
DISK = "disk.qcow2"  # in a layer's directory
# until the next boot: whoever would set the clock to the real time
STOP_CLOCKS = "systemctl stop systemd-timesyncd chrony chronyd ntp ntpd ntpsec 2>/dev/null || true"
HOSTNAME = "bake"  # of every build machine: machines of templates with other names share their layers


@dataclass(frozen=True)
class Started:
    """The build's machine, up and answering, with `depth` steps done already."""

    machine: Machine
    identity: Identity
    communicator: Communicator
    depth: int
    connection: ExitStack  # closes the connection; the machine goes on
    layer: Path | None = None  # the directory of the layer that it goes on from


class Layering:
    """What is going on with one build's layers. It is over, and nothing is left but finished layers, when its context ends."""

    def __init__(self, job: Job, plan: Plan, wish: LayerOptions) -> None:
        self._job, self._plan, self._wish = job, plan, wish
        self._clock = job.services.clock
        self.store = job.services.layers
        builder = job.builder
        keeps = isinstance(builder, SupportsSnapshot) and builder.keeps() and job.options.replay is None  # of a rebuild nothing is left
        self._keeper: SupportsSnapshot | None = builder if isinstance(builder, SupportsSnapshot) and keeps else None
        self._rooms = _Rooms(job, self.store)
        self.tracker = Tracker(builder, job.report, self._rooms.view)
        self._claims: dict[str, ExitStack] = {}
        self._held = ExitStack()  # what keeps layers from being collected
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="layer")
        self._pending: list[Future[None]] = []
        self._gate = OPEN
        self._parent: str | None = None
        self._ran: dict[str, float] = {}
        self._since = self._clock.now()  # when the work began that the next layer would save
        self._cost = policy.FIRST_COST  # of keeping: standing still, and then packing, for which the guest gets less of the host
        self._keys = policy.keys(plan)

    def __enter__(self) -> Layering:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True)
        for claim in self._claims.values():
            claim.close()
        self._held.close()
        self._rooms.close()

    # -- starting -----------------------------------------------------------------------------------------------------

    @contextmanager
    def started(self, gate: NetworkPolicy) -> Iterator[Started]:
        """The machine, from the deepest layer that can be restored, else booted from the source. `gate`: what it may reach."""
        self._gate = gate
        self._claim()
        with ExitStack() as stack:
            start = self._restore_one(stack) or self._boot(stack)
            yield start

    def _candidates(self) -> list[Candidate]:
        if self._keeper is None:
            return []
        return list(policy.candidates(self._plan, self._wish, self.store.find, now=self._clock.date(), username=self._username))

    @property
    def _username(self) -> str:
        return self._job.template.communicator.ssh_username or self._plan.source.ssh_username or DEFAULT_USERNAME

    def _claim(self) -> None:
        """Wait until nobody else carries out the step that would be ours to carry out first."""
        if self._keeper is None or not self._wish.use:
            return
        while True:
            depth = max((candidate.depth for candidate in self._candidates()), default=-1)
            if depth == len(self._plan.steps):
                return
            key = self._keys[depth + 1]
            claim = ExitStack()
            claim.enter_context(exclusive(self.store.root / "locks", f"make-{key}", on_wait=self._say_waiting))
            if max((candidate.depth for candidate in self._candidates()), default=-1) == depth:
                self._claims[key] = claim
                return
            claim.close()  # whoever held it has made that layer

    def _say_waiting(self) -> None:
        self._job.report.info("another build is making the next layer: waiting for it")

    def _restore_one(self, stack: ExitStack) -> Started | None:
        for candidate in self._candidates():
            name = candidate.layer.record.name
            attempt = ExitStack()
            try:
                with self._job.report.stage("restore", name):
                    start = self._restore(candidate, attempt)
            except (BakeError, Disconnected, GuestTimeout) as error:
                attempt.close()
                words = error.message if isinstance(error, BakeError) else str(error)
                if isinstance(error, (LayerError, BootError)):
                    self.store.mark_broken(candidate.layer, words)
                self._job.report.warn(f"the layer after {name} cannot be restored ({words}): going on from an earlier one")
                continue
            except BaseException:
                attempt.close()
                raise
            stack.push(attempt)
            self._tell_cached(candidate)
            self._parent, self._ran = candidate.layer.id, dict(candidate.layer.record.ran)
            self._since = self._clock.now()
            return start
        return None

    def _restore(self, candidate: Candidate, stack: ExitStack) -> Started:
        job, layer = self._job, candidate.layer
        assert self._keeper is not None
        if not stack.enter_context(self.store.using(layer)):
            raise HostError("it has just been collected")
        scratch = ensure(job.scratch / NAME)
        identity = layer.identity(scratch)
        overlay = self._rooms.next() / DISK
        request = Launch(
            NAME, self._plan.source.disk, self._plan.shape, identity, scratch, job.ledger, job.report, overlay=overlay, gate=self._gate
        )
        machine = stack.enter_context(self._keeper.restore(request, layer.directory))
        stack.callback(lambda: keep_console(job, NAME, machine.console_log))
        connection = stack.enter_context(ExitStack())
        connect = job.services.connect(machine.endpoint, identity, machine, scratch, report=job.report, timeout=RESTORE_SECONDS)
        communicator = connection.enter_context(connect)
        wake(communicator, None if self._plan.shape.clock is not None else time.time())
        join([layer.directory / RECORD], job.scratch / EARLIER)
        ansible_content.note(job.scratch, ansible_content.read(layer.directory))
        if (layer.directory / egress.NAME).exists():
            shutil.copyfile(layer.directory / egress.NAME, job.scratch / egress.EARLIER)
        return Started(machine, identity, communicator, candidate.depth, connection, layer.directory)

    def _tell_cached(self, candidate: Candidate) -> None:
        for planned in self._plan.steps[: candidate.depth]:
            self._job.report.sink.emit(
                StepFinished(
                    build=self._job.id,
                    index=planned.index,
                    step=planned.name,
                    seconds=0.0,
                    ok=True,
                    cached=True,
                    ran=candidate.layer.record.ran.get(planned.key, 0.0),
                )
            )

    def _boot(self, stack: ExitStack) -> Started:
        job, plan = self._job, self._plan
        overlay = self._rooms.next() / DISK if self._keeper else None
        recorded = int(datetime.fromisoformat(job.options.clock).timestamp()) if job.options.clock else None
        clock = recorded if plan.shape.clock is None else plan.shape.clock
        launch = launched(
            job,
            NAME,
            plan.source.media,
            plan.shape,
            plan.source.ssh_username,
            hostname=HOSTNAME,
            overlay=overlay,
            clock=clock,
            gate=self._gate,
        )
        machine, identity = stack.enter_context(launch)
        connection = stack.enter_context(ExitStack())
        communicator = connection.enter_context(connected(job, machine, identity))
        if clock is not None:
            communicator.run(STOP_CLOCKS)
        if plan.shape.clock is not None:  # systemd goes on from the day of its own build where the clock stands before that
            communicator.run(f"date -u -s @{plan.shape.clock} >/dev/null")
        start = Started(machine, identity, communicator, 0, connection)
        self._consider(start, 0, "boot")
        return start

    # -- keeping ------------------------------------------------------------------------------------------------------

    def view(self, disk: Disk) -> Disk:
        """The same disk of this build's machine, where all that it is backed by can be read."""
        return self._rooms.view(disk)

    def begin(self, start: Started) -> None:
        """The first step is about to be carried out."""
        if self._job.options.replay is None:
            self.tracker.begin(start.machine, start.communicator, start.layer)

    def after(self, start: Started, depth: int) -> None:
        """Step number `depth` is done: note what it changed, and keep the machine as it is now, if that pays."""
        planned = self._plan.steps[depth - 1]
        if self._job.options.replay is None:
            self.tracker.after(start.machine, start.communicator, depth)
        self._ran[planned.key] = self._job.story.steps[depth].ran
        self._consider(start, depth, planned.name)

    def why_not(self, depth: int, work: float) -> str:
        """Why the machine after `depth` steps and `work` seconds since the layer before is not kept; "" when it is."""
        if self._job.options.replay is not None:
            return "of a rebuild nothing is kept"
        if self._keeper is None:
            return "machines of this connection cannot be kept"
        reason = policy.never_kept(self._plan, depth)
        if reason:
            return reason
        if free(self.store.root) < policy.ROOM * self._plan.shape.memory:
            return "the disk has too little room"
        if depth and self._plan.steps[depth - 1].step.cache.keep:
            return ""
        if depth == self._wish.last or self._failed_last_time(depth + 1) or policy.pays(work, self._cost):
            return ""
        return f"{work:.1f} s of work are less than keeping would cost"

    def settle(self) -> None:
        """Wait until all that was kept is a layer: only then are the disks below the machine's own where it names them."""
        for done in self._pending:
            done.result()

    def check_keeping(self, depth: int) -> None:
        """BuildError when the machine after `depth` steps cannot be kept, before any work is done for it."""
        reason = self.why_not(depth, 0.0)
        if reason:
            raise BuildError(f"there can be no layer after step {depth}: {reason}")

    def _failed_last_time(self, number: int) -> bool:
        """Whether the next step is the one at which this template's last build failed: somebody is at work on it."""
        before = self._job.services.catalog.last_planned(self._job.template.name)
        return before is not None and any(
            step.status == "failed" and step.index == number and step.name == planned.name
            for step in before.steps
            for planned in self._plan.steps[number - 1 : number]
        )

    def _consider(self, start: Started, depth: int, name: str) -> None:
        reason = self.why_not(depth, self._clock.now() - self._since)
        if reason:
            self._job.report.debug(f"not kept after {name}: {reason}")
        else:
            try:
                self._keep(start, depth, name)
            except (BakeError, OSError) as error:
                reason, self._keeper = str(error), None
                self._job.report.warn(f"the machine cannot be kept after {name}, nor will it be in this build: {error}")
        if reason and self._keys[depth] in self._claims:
            self._claims.pop(self._keys[depth]).close()  # whoever waits for it has to do it anew
        if depth < len(self._plan.steps):
            self._claim_if_free(self._keys[depth + 1])

    def _keep(self, start: Started, depth: int, name: str) -> None:
        assert self._keeper is not None
        job, began = self._job, self._clock.now()
        key, place = self._keys[depth], self._rooms.current
        final = self.store.name(key, job.id)
        self._keeper.keep(start.machine, place, self._rooms.next() / DISK, f"../{final}/disk.qcow2")
        self._rooms.show(place, final)
        with_key_files(place, start.identity)
        self.tracker.keep(place)
        join([job.scratch / EARLIER, job.scratch / RECORD], place / RECORD)
        if found := ansible_content.read(job.scratch):
            ansible_content.note(place, found)
        if self._gate.dump is not None:
            network_report.note(start.machine, job.scratch, place / egress.NAME)
        standing = self._clock.now() - began
        record = LayerRecord(
            key=key,
            parent=self._parent,
            step=depth,
            name=name,
            template=job.template.name,
            build=job.id,
            made=self._clock.date(),
            work=round(began - self._since, 3),
            cost=round(standing, 3),
            ran=dict(self._ran),
            blobs=self._plan.source.chain,
            hostname=start.identity.hostname,
            username=start.identity.username,
            builder=job.template.builder.kind,
        )
        job.report.debug(f"kept after {name}: the machine stood still for {standing:.1f} s")
        self._pending.append(self._pool.submit(self._commit, self._keeper, place, record, tuple(self._claims)))
        self._parent, self._since = final, self._clock.now()

    def _commit(self, keeper: SupportsSnapshot, place: Path, record: LayerRecord, claims: tuple[str, ...]) -> None:
        """In the background: make a layer of what was kept, and let go of whoever waits for it."""
        began = time.monotonic()  # what this thread needs, while the build's own clock goes on with its steps
        try:
            keeper.pack(place)
            self._cost = record.cost + time.monotonic() - began
            layer = self.store.commit(place, record)
            self._rooms.forget(place)
            self._held.enter_context(self.store.using(layer))
        except (BakeError, OSError) as error:
            self._keeper = None
            self._rooms.move(place, self.store.root / self.store.name(record.key, record.build))
            self._job.report.warn(f"the layer after {record.name} is not kept: {error}")
        for key in claims:
            if claim := self._claims.pop(key, None):  # one kept before this has let go of it already, maybe
                claim.close()

    def _claim_if_free(self, key: str) -> None:
        if self._keeper is None or key in self._claims:
            return
        claim = ExitStack()
        if claim.enter_context(try_exclusive(self.store.root / "locks", f"make-{key}")):
            self._claims[key] = claim


class _Rooms:
    """The directories that the machine's disk lies in, one after the other: in the ledger before they are made."""

    def __init__(self, job: Job, store: LayerStore) -> None:
        self._job, self._store = job, store
        self._made: dict[Path, Entry] = {}
        self._number = 0
        self._shown: Path | None = None
        self.current = Path()

    def next(self) -> Path:
        self._number += 1
        self.current = self._store.place(self._job.id, self._number)
        self._made[self.current] = self._job.ledger.enter("directory", path=str(self.current))
        return ensure(self.current)

    def show(self, place: Path, final: str) -> None:
        """Let `view` find the disk in `place` by the name that the disk above it has for it; it has that name only once it is a layer."""
        if self._shown is None:
            root = self._store.root  # beside it: what disks refer to by relative paths is as far away from there
            self._shown = root.with_name(f"{root.name}-{self._job.id}")
            self._made[self._shown] = self._job.ledger.enter("directory", path=str(self._shown))
        os.link(place / DISK, ensure(self._shown / final) / DISK)

    def view(self, disk: Disk) -> Disk:
        """The same disk, where what is below it is found too."""
        if self._shown is None:
            return disk
        top = ensure(self._shown / "top") / DISK
        top.unlink(missing_ok=True)
        os.link(disk.path, top)
        return replace(disk, path=top)

    def forget(self, place: Path) -> None:
        """It has become a layer."""
        self._job.ledger.strike(self._made.pop(place))

    def move(self, place: Path, elsewhere: Path) -> None:
        """It has not, but the disk above it names it so."""
        for path in place.glob("memory*"):
            path.unlink(missing_ok=True)
        entry = self._made.pop(place)
        self._made[elsewhere] = self._job.ledger.enter("directory", path=str(elsewhere))
        place.rename(elsewhere)
        self._job.ledger.strike(entry)

    def close(self) -> None:
        if self._job.ledger.kept:
            return
        for place, entry in self._made.items():
            remove_tree(place)
            self._job.ledger.strike(entry)
