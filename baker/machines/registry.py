"""The builders by kind: built-in ones, and plugins in the entry-point group `baker.builders`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from baker.core.plugins import Plugins

if TYPE_CHECKING:
    from baker.core.home import Home
    from baker.machines.base import Builder
    from baker.template.builders import BuilderConfig

GROUP = "baker.builders"
BUILT_IN = {
    "libvirt": "baker.machines.libvirt.builder:LibvirtBuilder",
    "ec2": "baker.machines.ec2.builder:Ec2Builder",
}
NEEDS = {"libvirt": "apt-get install libvirt0, and libvirt-python", "ec2": "pip install boto3"}


class Factory(Protocol):
    """A builder's class. Without a configuration what it makes can only clean up. Nothing is opened before the first launch.

    A class with a classmethod `configured(home, config)` makes builders for a template; one without is called with libvirt's URI.
    """

    def __call__(self, home: Home, uri: str | None = None) -> Builder: ...


BUILDERS: Plugins[Factory] = Plugins(GROUP, "builder", BUILT_IN, needs=NEEDS)


def kinds() -> tuple[str, ...]:
    """Every kind that can be named in a template, built-in ones first."""
    return BUILDERS.names()


def get(kind: str) -> Factory:
    """The factory of `kind`. UsageError when there is none or its package is broken, HostError when it lacks a library."""
    return BUILDERS.get(kind)


def make(home: Home, config: BuilderConfig, uri: str | None = None) -> Builder:
    """The builder that a template asks for. `uri`: from the command line, for builders that have one."""
    factory, config = get(config.kind), config.with_values(uri=uri or None)
    configured: Callable[[Home, BuilderConfig], Builder] | None = getattr(factory, "configured", None)
    return configured(home, config) if configured else factory(home, getattr(config, "uri", None))


def all_for_sweep(home: Home) -> tuple[Builder, ...]:
    """One builder of every kind, to ask which of them knows a ledger entry."""
    return tuple(get(kind)(home) for kind in kinds())
