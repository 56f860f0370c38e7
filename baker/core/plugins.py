"""Registries of kinds: built-in ones, and those that installed Python packages add through an entry-point group.

A built-in kind is a line "module:attribute" in its registry and is imported on first use; to find one, no entry point is looked at.
Any other name is looked for in the registry's group, so a plugin is a pip package and nothing in bake is edited for it. A plugin does
not replace a built-in kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from baker.core.errors import HostError, UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Kind = TypeVar("Kind")


class Plugins(Generic[Kind]):
    """The kinds of one seam by name.

    `noun` names a kind in messages. With `instances`, what the name leads to is called without arguments, and the result is the kind.
    `methods` are what a kind must have. `needs` says what to install for a built-in kind whose libraries may be missing.
    """

    def __init__(
        self,
        group: str,
        noun: str,
        built_in: Mapping[str, str],
        *,
        instances: bool = False,
        methods: Sequence[str] = (),
        needs: Mapping[str, str] | None = None,
    ) -> None:
        self.group = group
        self.built_in = built_in
        self._noun, self._instances, self._methods, self._needs = noun, instances, tuple(methods), needs or {}

    def names(self) -> tuple[str, ...]:
        """Every name that `get` knows: built-in ones, then plugins in alphabetical order."""
        return (*self.built_in, *sorted(set(installed(self.group)) - set(self.built_in)))

    def get(self, name: str) -> Kind:
        """The kind `name`; its libraries are loaded only now.

        UsageError when there is none, when its package is broken, or when two packages have one of that name; HostError when a
        built-in kind lacks a library.
        """
        if name in self.built_in:
            return self._built_in(name)
        points = {point.value: point for point in installed(self.group).get(name, ())}
        if not points:
            raise UsageError(f"there is no {self._noun} {name!r}", hint=f"there are: {', '.join(self.names())}", code="plugin.unknown")
        if len(points) > 1:
            packages = " and ".join(sorted(f"{_package(point)} ({value})" for value, point in points.items()))
            raise UsageError(
                f"{len(points)} packages have a {self._noun} {name!r}: {packages}", hint="uninstall all but one", code="plugin.duplicate"
            )
        ((value, point),) = points.items()
        title = f"the {self._noun} {name!r} of the package {_package(point)} ({value})"
        hint = f"repair or uninstall {_package(point)}; docs/plugins.md says what a plugin needs"
        try:
            kind = self._loaded(value)
        except Exception as error:  # whatever somebody else's package raises while it is imported
            raise UsageError(f"{title} cannot be loaded: {error}", hint=hint, code="plugin.broken") from error
        missing = [f"{method}()" for method in self._methods if not callable(getattr(kind, method, None))]
        if missing:
            raise UsageError(f"{title} lacks {', '.join(missing)}", hint=hint, code="plugin.broken")
        return kind

    def _built_in(self, name: str) -> Kind:
        try:
            return self._loaded(self.built_in[name])
        except ImportError as error:
            if name not in self._needs:
                raise
            message = f"the {self._noun} {name!r} cannot be loaded: {error}"
            raise HostError(message, hint=self._needs[name], code="host.library-missing") from error

    def _loaded(self, value: str) -> Kind:
        module, _, attributes = value.partition(":")
        found: Any = import_module(module.strip())
        for attribute in attributes.strip().split("."):
            found = getattr(found, attribute)
        return cast(Kind, found() if self._instances else found)


@cache
def installed(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    """The entry points of a group by name. Reads the metadata of all installed packages, once in a process."""
    if not group:
        return {}
    from importlib.metadata import entry_points

    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=group):
        found[point.name] = (*found.get(point.name, ()), point)
    return found


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "of unknown name"
