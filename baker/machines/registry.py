"""The builders by name: the built-in one, and those that plugins bring in the entry-point group `baker.builders`."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Protocol, cast

from baker.core.errors import HostError, UsageError

if TYPE_CHECKING:
    from baker.core.home import Home
    from baker.machines.base import Builder
    from baker.template.ec2 import Ec2Spec
    from baker.template.model import AnyBuilder, BuilderSpec

GROUP = "baker.builders"
BUILT_IN = {
    "libvirt": ("baker.machines.libvirt.builder", "LibvirtBuilder"),
    "ec2": ("baker.machines.ec2.builder", "Ec2Builder"),
}
NEEDS = {"libvirt": "apt-get install libvirt0, and libvirt-python", "ec2": "pip install boto3"}


class Factory(Protocol):
    """Makes a builder of its kind. Nothing is opened before the first launch."""

    def __call__(self, home: Home, uri: str | None = None) -> Builder: ...


def kinds() -> tuple[str, ...]:
    """Every kind that can be named in a template."""
    return tuple(sorted({*BUILT_IN, *(point.name for point in _plugins())}))


def get(kind: str) -> Factory:
    """The factory of `kind`; its libraries load only now. UsageError when nobody has that kind, HostError when it cannot load."""
    if kind in BUILT_IN:
        module, name = BUILT_IN[kind]
        try:
            factory: Factory = getattr(importlib.import_module(module), name)
        except ImportError as error:
            raise HostError(f"the {kind} builder cannot be loaded: {error}", hint=NEEDS[kind]) from error
        return factory
    for point in _plugins():
        if point.name == kind:
            loaded: Factory = point.load()
            return loaded
    raise UsageError(f"there is no builder {kind!r}", hint=f"there are: {', '.join(kinds())}")


def make(home: Home, spec: AnyBuilder, uri: str | None = None) -> Builder:
    """The builder that a template asks for. `uri` wins over what the template says of where libvirt is."""
    if spec.kind == "ec2":
        from baker.machines.ec2.builder import Ec2Builder

        return Ec2Builder(home, spec=cast("Ec2Spec", spec))
    return get(spec.kind)(home, uri or cast("BuilderSpec", spec).uri)


def all_for_sweep(home: Home) -> tuple[Builder, ...]:
    """One builder of every kind, to ask which of them knows a ledger entry."""
    return tuple(get(kind)(home) for kind in kinds())


def _plugins() -> Iterable[EntryPoint]:
    return entry_points(group=GROUP)
