"""Services."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from baker.build.verify import verify
from baker.core.clock import Clock
from baker.core.errors import BakeError
from baker.core.events import Reporter, Sink
from baker.core.home import Home
from baker.core.ledger import Ledger
from baker.core.model import Endpoint, Identity, TestReport
from baker.machines.base import Builder, Machine
from baker.machines.ssh.communicator import Communicator
from baker.sources.base import Source
from baker.store.directory import DirectoryStore
from baker.template.builders import BuilderConfig

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog


Decision = Literal["cleanup", "abort", "retry"]


class Interaction(Protocol):
    """A person, where there is one."""

    def on_failure(self, policy: Literal["ask", "shell"], error: BakeError, ssh: Sequence[str]) -> Decision:
        """A step failed and the machine is still there: `ssh` is the command that enters it."""


class Nobody:
    """No person at the terminal: clean up."""

    def on_failure(self, policy: Literal["ask", "shell"], error: BakeError, ssh: Sequence[str]) -> Decision:
        return "cleanup"


class Connect(Protocol):
    """Waits for a machine's SSH and opens the one connection."""

    def __call__(
        self, endpoint: Endpoint, identity: Identity, machine: Machine, scratch: Path, *, report: Reporter, timeout: float
    ) -> AbstractContextManager[Communicator]: ...


@dataclass(frozen=True)
class Services:
    """Everything outside: where things are kept, what runs machines, who listens. Unit tests hand in fakes."""

    home: Home
    store: DirectoryStore
    catalog: Catalog
    ledger: Ledger
    sink: Sink
    builder: Callable[[BuilderConfig, str | None], Builder]  # of a template's `builder`, and a URI over what that says
    connect: Connect
    source: Callable[[Any], Source]
    interaction: Interaction = field(default_factory=Nobody)
    clock: Clock = field(default_factory=Clock)
    env: Mapping[str, str] = field(default_factory=dict)
    search: tuple[Path, ...] = ()  # directories of bundles besides a template's own
    test: Callable[..., TestReport] = verify  # runs a template's tests
