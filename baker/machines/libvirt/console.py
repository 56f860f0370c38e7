"""The serial console of a machine whose files are not accessible: copied over the libvirt connection to a local log."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import BinaryIO

from baker.machines.libvirt.connection import Connection, host_error
from baker.machines.libvirt.library import libvirt


def follow_console(connection: Connection, domain: libvirt.virDomain, log: Path) -> None:
    """Copy the guest's console output to `log`, in a thread, until the machine stops."""
    stream = connection.handle.newStream()
    try:
        domain.openConsole(None, stream, 0)
    except libvirt.libvirtError as error:
        raise host_error(error, "cannot read the machine's console") from error
    threading.Thread(target=_copy, args=(stream, log), daemon=True, name="console").start()


def _copy(stream: libvirt.virStream, log: Path) -> None:
    with log.open("wb", buffering=0) as file:
        try:
            stream.recvAll(_write, file)
        except (libvirt.libvirtError, OSError):
            return  # the machine stopped


def _write(_stream: libvirt.virStream, data: bytes, file: BinaryIO) -> int:
    return file.write(data)
