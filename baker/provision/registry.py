"""Which kinds of provisioning steps there are, and where each lives.

A built-in kind is a line in BUILT_IN. Any other name is looked for in the entry-point group `baker.provisioners` of the
installed Python packages, so that a plugin is a pip package and the engine is never edited for one.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from pydantic import BaseModel

from baker.core.errors import UsageError
from baker.provision.base import Provisioner

GROUP = "baker.provisioners"
BUILT_IN = {
    "shell": "baker.provision.shell:Shell",
    "file": "baker.provision.file:File",
    "ansible": "baker.provision.ansible:Ansible",
}


def names() -> tuple[str, ...]:
    """Every kind that `get` knows, built-in ones first, plugins sorted after them."""
    return (*BUILT_IN, *sorted(set(_plugins()) - set(BUILT_IN)))


@cache
def get(name: str) -> Provisioner:
    """The kind `name`, imported on first use. KeyError when there is none, UsageError when its package is broken."""
    if name in BUILT_IN:
        return _load(EntryPoint(name, BUILT_IN[name], GROUP))
    plugins = _plugins()
    if name not in plugins:
        raise KeyError(name)
    return _load(plugins[name])


def _plugins() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _load(entry: EntryPoint) -> Provisioner:
    module, _, attribute = entry.value.partition(":")
    try:
        kind = getattr(import_module(module.strip()), attribute.strip())()
    except Exception as error:  # whatever somebody else's package raises while it is imported
        raise UsageError(f"the provisioner plugin {entry.name!r} ({entry.value}) cannot be loaded: {error}") from error
    config = getattr(kind, "Config", None)
    complete = all(callable(getattr(kind, method, None)) for method in ("inputs", "operations"))
    if not complete or not isinstance(config, type) or not issubclass(config, BaseModel):
        raise UsageError(
            f"the provisioner plugin {entry.name!r} ({entry.value}) lacks Config, inputs() or operations()", hint="see docs/plugins.md"
        )
    return cast(Provisioner, kind)
