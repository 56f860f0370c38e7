"""libvirt's Python modules, loaded when something of them is first used: loading them takes as long as starting Python twice, and a
build that finds its image in the catalog starts no machine."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from baker.core.errors import HostError

if TYPE_CHECKING:
    import libvirt
    import libvirt_qemu

# libvirt reads this when it is loaded, and would print warnings of its in-process driver on our terminal. Errors come as exceptions.
os.environ.setdefault("LIBVIRT_LOG_OUTPUTS", "4:file:/dev/null")


class _Library:
    """A module that is not loaded yet."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        try:
            module = import_module(self._name)
        except ImportError as error:
            hint = "apt-get install libvirt0, and pip install libvirt-python"
            raise HostError(f"libvirt cannot be loaded: {error}", hint=hint, code="machine.no-libvirt") from error
        value = getattr(module, attribute)
        setattr(self, attribute, value)
        return value


if not TYPE_CHECKING:
    libvirt, libvirt_qemu = _Library("libvirt"), _Library("libvirt_qemu")

__all__ = ["libvirt", "libvirt_qemu"]
