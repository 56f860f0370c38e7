"""The services of a build: catalog, store, leases, builders, event sink and clock.

`open_services` is the only place that chooses their implementations. Everything else gets a `Services`, or parts of one, and knows
their protocols only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from baker.core.clock import Clock

if TYPE_CHECKING:  # imported only when it is used, because most verbs need few of these
    from baker.catalog.catalog import Catalog
    from baker.core.errors import BakeError
    from baker.core.events import Reporter, Sink
    from baker.core.home import Home
    from baker.core.leases import Leases
    from baker.core.ledger import Ledger
    from baker.core.model import Endpoint, Identity, TestReport
    from baker.layers.store import LayerStore
    from baker.machines.base import Builder, Machine
    from baker.machines.ssh.communicator import Communicator
    from baker.sources.base import Source
    from baker.store.base import BlobStore
    from baker.template.builders import BuilderConfig

Decision = Literal["cleanup", "abort", "retry"]


class Interaction(Protocol):
    """The prompt at the terminal, if there is one."""

    def on_failure(self, policy: Literal["ask", "shell"], error: BakeError, ssh: Sequence[str]) -> Decision:
        """Ask what to do about a failed step. The machine still runs; `ssh` is the command that enters it."""


class Nobody:
    """The `Interaction` without a terminal: always clean up."""

    def on_failure(self, policy: Literal["ask", "shell"], error: BakeError, ssh: Sequence[str]) -> Decision:
        return "cleanup"


class Connect(Protocol):
    """Waits until a machine answers over SSH and opens the connection."""

    def __call__(
        self, endpoint: Endpoint, identity: Identity, machine: Machine, scratch: Path, *, report: Reporter, timeout: float
    ) -> AbstractContextManager[Communicator]: ...


def _connect(
    endpoint: Endpoint, identity: Identity, machine: Machine, scratch: Path, *, report: Reporter, timeout: float
) -> AbstractContextManager[Communicator]:
    from baker.machines.ssh.client import connect

    return connect(endpoint, identity, machine, scratch, report=report, timeout=timeout)


def _source(spec: Any) -> Source:
    from baker.sources import registry

    return registry.for_spec(spec)


def _test(*args: Any, **options: Any) -> TestReport:
    from baker.build.verify import verify

    return verify(*args, **options)


@dataclass(frozen=True)
class Services:
    """Everything outside of the process. Unit tests pass fakes."""

    home: Home
    catalog: Catalog
    store: BlobStore
    leases: Leases
    ledger: Ledger
    sink: Sink
    builder: Callable[[BuilderConfig, str | None], Builder]  # for a template's `builder`, and a URI that replaces the one in it
    connect: Connect = _connect
    source: Callable[[Any], Source] = _source  # the implementation that serves a template's `source`
    interaction: Interaction = field(default_factory=Nobody)
    clock: Clock = field(default_factory=Clock)
    env: Mapping[str, str] = field(default_factory=dict)
    search: tuple[Path, ...] = ()  # directories with bundles, besides the template's own
    test: Callable[..., TestReport] = _test  # runs a template's tests; see baker.build.verify.verify

    @property
    def layers(self) -> LayerStore:
        """The layers that this host keeps."""
        from baker.layers.store import LayerStore

        return LayerStore(self.home.layers)


def open_services(
    home: Home,
    sink: Sink,
    *,
    interaction: Interaction | None = None,
    env: Mapping[str, str],
    search: tuple[Path, ...] = (),
) -> Services:
    """Return the services for `home` and `env`. Nothing is opened or created before its first use."""
    from baker.catalog.catalog import Catalog
    from baker.core.leases import FileLeases
    from baker.core.ledger import Ledger
    from baker.store.directory import DirectoryStore

    def builder(spec: BuilderConfig, uri: str | None) -> Builder:
        from baker.machines import registry

        return registry.make(home, spec, uri)

    return Services(
        home=home,
        catalog=Catalog(home.catalog),
        store=DirectoryStore(home.blobs),
        leases=FileLeases(home.state),
        ledger=Ledger(home.ledger),
        sink=sink,
        builder=builder,
        interaction=interaction or Nobody(),
        env=env,
        search=search,
    )
