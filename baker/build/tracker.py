"""Tracks, from outside the machine, which inodes of its disk each step changes."""

from __future__ import annotations

import time

from baker.build.change_tracking import ChangedInodes
from baker.build.started import StartedMachine, StepObserver
from baker.core.errors import BakeError
from baker.core.events import Reporter
from baker.disks.inode_tables import read_inode_tables
from baker.machines.base import Builder, SupportsPause
from baker.machines.ssh.communicator import Disconnected, GuestTimeout
from baker.plan.plan import PlannedStep

SYNC_SECONDS = 120.0


class Tracker(StepObserver):
    """Records which inodes each step changed. `changed` is None if that is unknown, as after a failure."""

    def __init__(self, builder: Builder | None, report: Reporter) -> None:
        """`builder` None: nothing is tracked."""
        self._builder: SupportsPause | None = builder if isinstance(builder, SupportsPause) and builder.can_pause() else None
        self._report = report
        self.changed: ChangedInodes | None = ChangedInodes() if self._builder else None

    def begin(self, start: StartedMachine) -> None:
        if self._builder is None:
            return
        self.changed = start.changed_inodes
        if self.changed is None:
            self._report.info("the changes of each step are not recorded: the layer that the build starts from has no data about them")
        self._compare(start, None)

    def after_step(self, start: StartedMachine, planned: PlannedStep) -> None:
        self._compare(start, planned.index)

    def _compare(self, start: StartedMachine, step: int | None) -> None:
        """Read the inodes while the machine is paused, and record those that differ from the last time as changed by `step`."""
        if self._builder is None or self.changed is None:
            return
        began = time.monotonic()
        try:
            start.communicator.run("sync", timeout=SYNC_SECONDS)
            with self._builder.paused_disk(start.machine) as disk:
                tables = read_inode_tables(start.readable(disk))
            self.changed.add(tables, step)
            self._report.debug(f"read the inodes in {time.monotonic() - began:.2f} s")
        except (BakeError, Disconnected, GuestTimeout, OSError) as error:
            self.changed = None
            self._report.info(f"the changes of each step are not recorded: {error.message if isinstance(error, BakeError) else error}")
