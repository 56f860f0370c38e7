"""QEMU's user network as command-line arguments (qemu(1), -netdev user; -object filter-dump).

It needs no rights. A guest reaches out through the host, and is reached only where a forward is added at run time. Closed, it reaches
nothing but the proxy of its build: QEMU gives such connections to a program (`guestfwd=...-cmd:`), which passes them on to the host's
loopback. libvirt's seccomp filter for QEMU forbids it to start programs; these machines have the filter without that part.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from baker.core.model import NetworkPolicy

NETDEV = "bake"  # the id of the user network: forwards are added to it at run time
DUMP = "bake-packets"
NETWORK_ADDRESS = "0x1e"  # a PCI slot of the root bus that libvirt gives to nothing else
HOST_ADDRESS = "10.0.2.2"  # of the host's loopback
PROXY_ADDRESS, PROXY_PORT = "10.0.2.100", 3128  # of the proxy, where it is all that there is
SANDBOX = "on,obsolete=deny,resourcecontrol=deny"  # libvirt's denies fork(2), and setsid(2) among the privileges, which starting takes
SANDBOX_CAPABILITY = "seccomp-sandbox"  # without it libvirt says nothing of a filter
SNAPLEN = 512  # bytes of a packet that are noted: enough for the answer to a question about a name
GUESTFWD = Path(__file__).with_name("guestfwd.py")


def arguments(gate: NetworkPolicy) -> Iterator[str]:
    """The arguments that give a machine its network."""
    options = f"user,id={NETDEV}"
    if gate.network == "closed":
        options += ",restrict=on"
        if gate.port:
            command = f"{_quoted(sys.executable)} -I -S {_quoted(str(GUESTFWD))} {gate.port}"
            options += f",guestfwd=tcp:{PROXY_ADDRESS}:{PROXY_PORT}-cmd:{_escaped(command)}"
            yield from ("-sandbox", SANDBOX)
    yield from ("-netdev", options)
    yield from ("-device", f"virtio-net-pci,netdev={NETDEV},addr={NETWORK_ADDRESS},romfile=")
    if gate.dump is not None:
        yield from ("-object", f"filter-dump,id={DUMP},netdev={NETDEV},file={_escaped(str(gate.dump))},maxlen={SNAPLEN}")


def address(gate: NetworkPolicy, port: int) -> str:
    """Where the guest reaches what listens on the host's loopback at `port`, "host:port"; closed, that is the proxy alone."""
    return f"{PROXY_ADDRESS}:{PROXY_PORT}" if gate.network == "closed" else f"{HOST_ADDRESS}:{port}"


def _escaped(text: str) -> str:
    return text.replace(",", ",,")


def _quoted(text: str) -> str:
    """As g_shell_parse_argv(3) takes it apart again."""
    return "'" + text.replace("'", "'\\''") + "'"
