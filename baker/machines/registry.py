"""The builders by kind: built-in ones, and plugins in the entry-point group `baker.builders`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from baker.core.plugins import Plugins

if TYPE_CHECKING:
    from baker.core.home import Home
    from baker.machines.base import Builder
    from baker.template.ec2 import Ec2Spec
    from baker.template.model import AnyBuilder, BuilderSpec

GROUP = "baker.builders"
BUILT_IN = {
    "libvirt": "baker.machines.libvirt.builder:LibvirtBuilder",
    "ec2": "baker.machines.ec2.builder:Ec2Builder",
}
NEEDS = {"libvirt": "apt-get install libvirt0, and libvirt-python", "ec2": "pip install boto3"}


class Factory(Protocol):
    """Makes a builder of its kind. Nothing is opened before the first launch."""

    def __call__(self, home: Home, uri: str | None = None) -> Builder: ...


BUILDERS: Plugins[Factory] = Plugins(GROUP, "builder", BUILT_IN, needs=NEEDS)


def kinds() -> tuple[str, ...]:
    """Every kind that can be named in a template, built-in ones first."""
    return BUILDERS.names()


def get(kind: str) -> Factory:
    """The factory of `kind`. UsageError when there is none or its package is broken, HostError when it lacks a library."""
    return BUILDERS.get(kind)


def make(home: Home, spec: AnyBuilder, uri: str | None = None) -> Builder:
    """The builder that a template asks for. `uri` wins over what the template says of where libvirt is."""
    if spec.kind == "ec2":
        from baker.machines.ec2.builder import Ec2Builder

        return Ec2Builder(home, spec=cast("Ec2Spec", spec))
    return get(spec.kind)(home, uri or cast("BuilderSpec", spec).uri)


def all_for_sweep(home: Home) -> tuple[Builder, ...]:
    """One builder of every kind, to ask which of them knows a ledger entry."""
    return tuple(get(kind)(home) for kind in kinds())
