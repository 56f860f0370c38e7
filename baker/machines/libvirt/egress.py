"""The endpoints that a guest contacted over QEMU's user network, from the packets that QEMU's filter-dump wrote.

An endpoint counts when the guest sent it a TCP segment with SYN and without ACK, or a UDP datagram. Its name is the one that a DNS answer
in the dump gave for its address. Formats: pcap-savefile(5) with the link type Ethernet, RFC 791, RFC 768, RFC 9293, RFC 1035, RFC 8200.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from pathlib import Path

from baker.core.model import EgressEndpoint

MAGICS = {b"\xd4\xc3\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">"}
ETHERNET, IPV4, IPV6 = 1, 0x0800, 0x86DD
TCP, UDP = 6, 17
SYN, ACK = 0x02, 0x10
DNS, DHCP, DHCP6 = 53, 67, 547
HOST_MAC = b"\x52\x55"  # the beginning of the Ethernet addresses that libslirp gives to everything except the guest


def endpoints_in(dump: Path, ignored: frozenset[tuple[str, int]]) -> list[EgressEndpoint]:
    """The endpoints in a dump, in the order of first contact, without those in `ignored` ((address, port)), name servers, DHCP, multicast
    and broadcast. Empty when there is no dump."""
    names: dict[str, str] = {}
    found: dict[tuple[str, str, int], None] = {}
    for packet in _packets(dump):
        parsed = _ip(packet)
        if parsed is None:
            continue
        protocol, _source, target, payload = parsed
        if len(payload) < 8:
            continue
        source_port, port = struct.unpack_from(">HH", payload)
        if protocol == UDP and source_port == DNS:
            names |= _answers(payload[8:])
        elif packet[6:8] != HOST_MAC and _is_first(protocol, payload) and (target, port) not in ignored and _is_outside(target, port):
            found[("tcp" if protocol == TCP else "udp", target, port)] = None
    return [EgressEndpoint(kind, address, port, names.get(address, "")) for kind, address, port in found]


def _is_first(protocol: int, payload: bytes) -> bool:
    """Whether a packet opens a connection, or is a UDP datagram."""
    if protocol == UDP:
        return True
    return protocol == TCP and len(payload) >= 14 and payload[13] & (SYN | ACK) == SYN


def _is_outside(address: str, port: int) -> bool:
    """Whether an endpoint is beyond the guest's own network and is neither DNS nor DHCP."""
    ip = ipaddress.ip_address(address)
    local = ip.is_multicast or ip.is_unspecified or address.endswith(".255") or (ip.version == 6 and ip.is_link_local)
    return not local and port not in (DNS, DHCP) and not (ip.version == 6 and port == DHCP6)


def _packets(dump: Path) -> Iterator[bytes]:
    """The packets of a pcap file, up to an incomplete one."""
    try:
        file = dump.open("rb")
    except OSError:
        return
    with file:
        head = file.read(24)
        order = MAGICS.get(head[:4])
        if order is None or len(head) < 24 or struct.unpack_from(f"{order}I", head, 20)[0] & 0xFFFF != ETHERNET:
            return
        while len(record := file.read(16)) == 16:
            (length,) = struct.unpack_from(f"{order}I", record, 8)
            packet = file.read(length)
            if len(packet) < length:
                return
            yield packet


def _ip(packet: bytes) -> tuple[int, str, str, bytes] | None:
    """(protocol, source, target, payload) of an IP packet in an Ethernet frame. None for other frames and for later fragments."""
    if len(packet) < 34:
        return None
    (kind,) = struct.unpack_from(">H", packet, 12)
    if kind == IPV4:
        size = (packet[14] & 15) * 4
        if struct.unpack_from(">H", packet, 20)[0] & 0x1FFF:
            return None
        source, target = (str(ipaddress.IPv4Address(packet[at : at + 4])) for at in (26, 30))
        return packet[23], source, target, packet[14 + size :]
    if kind == IPV6 and len(packet) >= 54:
        source, target = (str(ipaddress.IPv6Address(packet[at : at + 16])) for at in (22, 38))
        return packet[20], source, target, packet[54:]
    return None


def _answers(message: bytes) -> dict[str, str]:
    """Address -> queried name, from a DNS answer (RFC 1035, 4.1). Aliases between the two are skipped."""
    try:
        _, flags, questions, answers = struct.unpack_from(">4H", message)
        if not flags & 0x8000 or questions != 1:
            return {}
        name, position = _name(message, 12)
        position += 4
        found = {}
        for _ in range(answers):
            _, position = _name(message, position)
            kind, _, _, size = struct.unpack_from(">HHIH", message, position)
            data = message[position + 10 : position + 10 + size]
            position += 10 + size
            if kind == 1 and len(data) == 4:
                found[str(ipaddress.IPv4Address(data))] = name
            elif kind == 28 and len(data) == 16:
                found[str(ipaddress.IPv6Address(data))] = name
        return found
    except (struct.error, IndexError):
        return {}


def _name(message: bytes, position: int) -> tuple[str, int]:
    """(name, offset of its end) of a name at `position`, with compression pointers followed (RFC 1035, 4.1.4)."""
    labels: list[str] = []
    end = 0
    for _ in range(128):
        length = message[position]
        if length & 0xC0 == 0xC0:
            end = end or position + 2
            position = (length & 0x3F) << 8 | message[position + 1]
            continue
        position += 1
        if not length:
            break
        labels.append(message[position : position + length].decode("ascii", "replace"))
        position += length
    return ".".join(labels), end or position
