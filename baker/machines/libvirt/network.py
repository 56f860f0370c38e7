"""QEMU's user network as command-line arguments (qemu(1), -netdev user; -object filter-dump).

It needs no privileges. A guest connects to the outside through the host, and accepts connections only through forwards that are added at
run time. In a closed network it can connect only to the proxy of its build: QEMU connects that to a program (`guestfwd=...-cmd:`), which
copies the data to and from the host's loopback. libvirt's seccomp filter for QEMU forbids starting programs, so these machines have a
filter without that part.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from baker.core.model import NetworkPolicy

NETDEV = "bake"  # the id of the user network: forwards are added to it at run time
DUMP = "bake-packets"
NETWORK_ADDRESS = "0x1e"  # a PCI slot of the root bus that libvirt does not use
HOST_ADDRESS = "10.0.2.2"  # the host's loopback, as the guest sees it
PROXY_ADDRESS, PROXY_PORT = "10.0.2.100", 3128  # the proxy, as the guest of a closed network sees it
SANDBOX = "on,obsolete=deny,resourcecontrol=deny"  # libvirt's own also denies fork(2) and setsid(2), which starting a program needs
SANDBOX_CAPABILITY = "seccomp-sandbox"  # a QEMU capability, without which libvirt passes no -sandbox argument
SNAPLEN = 512  # bytes of each packet that are recorded: enough for a DNS answer
GUESTFWD = Path(__file__).with_name("guestfwd.py")


def arguments(network_policy: NetworkPolicy) -> Iterator[str]:
    """QEMU's arguments for a machine's network."""
    options = f"user,id={NETDEV}"
    if network_policy.network == "closed":
        options += ",restrict=on"
        if network_policy.port:
            command = f"{_quoted(sys.executable)} -I -S {_quoted(str(GUESTFWD))} {network_policy.port}"
            options += f",guestfwd=tcp:{PROXY_ADDRESS}:{PROXY_PORT}-cmd:{_escaped(command)}"
            yield from ("-sandbox", SANDBOX)
    yield from ("-netdev", options)
    yield from ("-device", f"virtio-net-pci,netdev={NETDEV},addr={NETWORK_ADDRESS},romfile=")
    if network_policy.dump is not None:
        yield from ("-object", f"filter-dump,id={DUMP},netdev={NETDEV},file={_escaped(str(network_policy.dump))},maxlen={SNAPLEN}")


def address(network_policy: NetworkPolicy, port: int) -> str:
    """The address at which the guest reaches `port` of the host's loopback, "host:port". In a closed network, that of the proxy."""
    return f"{PROXY_ADDRESS}:{PROXY_PORT}" if network_policy.network == "closed" else f"{HOST_ADDRESS}:{port}"


def _escaped(text: str) -> str:
    return text.replace(",", ",,")


def _quoted(text: str) -> str:
    """Quote an argument for g_shell_parse_argv(3), with which QEMU splits the command."""
    return "'" + text.replace("'", "'\\''") + "'"
