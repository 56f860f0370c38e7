"""The build's machine after it was started, and the interface for observers of its steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from baker.build.change_tracking import ChangedInodes
from baker.core.model import Disk, Identity
from baker.layers.store import Layer
from baker.machines.base import Machine
from baker.machines.ssh.communicator import Communicator
from baker.plan.plan import PlannedStep


@dataclass(frozen=True)
class StartedMachine:
    """The build's machine after its first `depth` steps. `connection` closes the connection while the machine keeps running."""

    machine: Machine
    identity: Identity
    communicator: Communicator
    connection: ExitStack
    readable: Callable[[Disk], Disk]  # returns the same disk at a path from which all backing files can be found
    depth: int = 0
    layer: Layer | None = None  # the layer that it was restored from
    changed_inodes: ChangedInodes | None = field(default_factory=ChangedInodes)  # by the first `depth` steps; None: unknown


class StepObserver:
    """Base class of objects that are called while the steps of a build run. An observer overrides the methods that it needs."""

    def begin(self, start: StartedMachine) -> None:
        """Called when the machine is connected, before the first step that runs."""

    def after_step(self, start: StartedMachine, planned: PlannedStep) -> None:
        """Called after a step has succeeded."""

    def finish(self, start: StartedMachine) -> None:
        """Called after the machine has shut down, before it is captured."""
