"""What a guest spoke to over QEMU's user network, out of the packets that QEMU's filter-dump wrote.

Only beginnings of conversations are looked at: TCP segments with SYN and without ACK, the first UDP datagram to a place. Names are those
that the guest's own questions to its name server were answered with. Formats: the pcap file of libpcap (pcap-savefile(5), link type
Ethernet), RFC 791, RFC 768, RFC 9293, RFC 1035, RFC 8200.
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
DNS, DHCP = 53, 67
HOST_MAC = b"\x52\x55"  # the beginning of the addresses that libslirp gives to whatever is not the guest


def reached(dump: Path, ours: frozenset[tuple[str, int]]) -> list[EgressEndpoint]:
    """The places in a dump, in the order in which they were first spoken to, without those in `ours` ((address, port)), name servers,
    DHCP and whoever may hear in the same network (multicast, broadcast)."""
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
        elif packet[6:8] != HOST_MAC and _begins(protocol, payload) and (target, port) not in ours and _far(target, port):
            found[("tcp" if protocol == TCP else "udp", target, port)] = None
    return [EgressEndpoint(kind, address, port, names.get(address, "")) for kind, address, port in found]


def _begins(protocol: int, payload: bytes) -> bool:
    if protocol == UDP:
        return True
    return protocol == TCP and len(payload) >= 14 and payload[13] & (SYN | ACK) == SYN


def _far(address: str, port: int) -> bool:
    place = ipaddress.ip_address(address)
    local = place.is_multicast or place.is_unspecified or address.endswith(".255") or (place.version == 6 and place.is_link_local)
    return not local and port not in (DNS, DHCP) and not (place.version == 6 and port == 547)


def _packets(dump: Path) -> Iterator[bytes]:
    """The packets of a pcap file; a torn end is the end."""
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
    """(protocol, source, target, payload) of an IP packet in an Ethernet frame; None for others, and for fragments but the first."""
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
    """Address -> the name that was asked for, of a DNS answer (RFC 1035, 4.1); aliases between the two are passed over."""
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
    """(name, where it ends); a name that points elsewhere is followed once for each pointer (RFC 1035, 4.1.4)."""
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
