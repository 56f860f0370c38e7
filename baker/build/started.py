"""The build's machine once it answers, and who observes the steps that run on it."""

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
    """The build's machine with its first `depth` steps done. `connection` closes the connection while the machine goes on running."""

    machine: Machine
    identity: Identity
    communicator: Communicator
    connection: ExitStack
    readable: Callable[[Disk], Disk]  # the same disk of this machine, at a path from which all of its backing files are found
    depth: int = 0
    layer: Layer | None = None  # the layer that it was restored from
    changed_inodes: ChangedInodes | None = field(default_factory=ChangedInodes)  # by the first `depth` steps; None: not known


class StepObserver:
    """Is called while the steps of a build run on its machine. An observer overrides what it needs."""

    def begin(self, start: StartedMachine) -> None:
        """The machine is up, and the first step that is not in a layer is about to run."""

    def after_step(self, start: StartedMachine, planned: PlannedStep) -> None:
        """A step has succeeded."""

    def finish(self, start: StartedMachine) -> None:
        """The machine has shut down and is about to be captured."""
