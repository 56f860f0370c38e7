"""The kinds of provisioning steps: built-in ones, and plugins in the entry-point group `baker.provisioners`."""

from __future__ import annotations

from pydantic import BaseModel

from baker.core.errors import UsageError
from baker.core.plugins import Plugins
from baker.provision.base import Provisioner

GROUP = "baker.provisioners"
BUILT_IN = {
    "shell": "baker.provision.shell:Shell",
    "file": "baker.provision.file:File",
    "ansible": "baker.provision.ansible:Ansible",
}
KINDS = Plugins[Provisioner](GROUP, "provisioner kind", BUILT_IN, instances=True, methods=("inputs", "operations"))


def names() -> tuple[str, ...]:
    """Every kind that `get` knows: built-in ones, then plugins in alphabetical order."""
    return KINDS.names()


def get(name: str) -> Provisioner:
    """The kind `name`. UsageError when there is none, or when its package is broken."""
    kind = KINDS.get(name)
    config = getattr(kind, "Config", None)
    if not isinstance(config, type) or not issubclass(config, BaseModel):
        raise UsageError(f"the provisioner kind {name!r} lacks Config, a pydantic model", hint="see docs/plugins.md", code="plugin.broken")
    return kind
