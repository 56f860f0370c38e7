"""Remove the machine of a dead process: through libvirt, else by ending the QEMU process that has its UUID.

For embedded machines this runs as a program (`python -m baker.machines.libvirt.reclaim URI ROOT UUID`): a process can open one root
only, and the sweeping process may have opened another.
"""

from __future__ import annotations

import itertools
import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from baker.core import process
from baker.core.errors import BakeError, HostError
from baker.machines.libvirt.connection import Connection, host_error, is_embedded, open_embedded, open_uri
from baker.machines.libvirt.library import libvirt

LIBVIRT_SECONDS = 30.0
END_SECONDS = 10.0


def reclaim_domain(uri: str, root: str | None, uuid: str) -> None:
    """Destroy the domain `uuid`. Does nothing when it does not exist. HostError when it cannot be ended."""
    if not is_embedded(uri):
        destroy(open_uri(uri), uuid)
        return
    if root and Path(root).is_dir():
        argv = [sys.executable, "-m", "baker.machines.libvirt.reclaim", uri, root, uuid]
        try:
            process.run(argv, timeout=LIBVIRT_SECONDS, what="destroy the machine", env={"PYTHONPATH": os.pathsep.join(sys.path)})
        except process.CommandError:
            pass  # libvirt could not; the process is ended below
    end_qemu(uuid, root or "")


def destroy(connection: Connection, uuid: str) -> None:
    """Power off a domain. Does nothing when it does not exist or is off."""
    try:
        connection.handle.lookupByUUIDString(uuid).destroy()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            raise host_error(error, "cannot destroy the machine") from error


def end_qemu(uuid: str, root: str = "") -> None:
    """End the QEMU processes of the domain `uuid` below the embedded driver's `root`. The root tells apart machines that were restored from
    the same layer, which have the same UUID."""
    for pid in qemu_processes(uuid, root):
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if pid in qemu_processes(uuid, root):  # so the handle refers to this process, and not to a later one with its id
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                ended, _, _ = select.select([handle], [], [], END_SECONDS)
                if not ended:
                    raise HostError(
                        f"QEMU (process {pid}) did not end within {END_SECONDS:.0f} s of SIGKILL", code="machine.process-does-not-end"
                    )
        except ProcessLookupError:
            continue
        finally:
            os.close(handle)


def qemu_processes(uuid: str, root: str = "") -> Iterator[int]:
    """The processes whose arguments are those of a QEMU with `-uuid UUID` and with files below `root`."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (directory / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # the process has ended
        ours = any(root.encode() in argument for argument in arguments)
        if ours and b"qemu" in Path(os.fsdecode(arguments[0])).name.encode() and _follows(arguments, b"-uuid", uuid.encode()):
            yield int(directory.name)


def _follows(arguments: list[bytes], option: bytes, value: bytes) -> bool:
    return any(left == option and right == value for left, right in itertools.pairwise(arguments))


def main(uri: str, root: str, uuid: str) -> None:
    destroy(open_embedded(Path(root)) if is_embedded(uri) else open_uri(uri), uuid)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except BakeError as error:
        raise SystemExit(str(error)) from None
