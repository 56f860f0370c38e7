"""What a guest reached, out of packets as QEMU's filter-dump writes them."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path

from baker.machines.libvirt.egress import TCP, UDP, endpoints_in

GUEST, NAMES, FAR, RECORDER = "10.0.2.15", "10.0.2.3", "192.0.2.7", ("10.0.2.2", 3128)


def packet(protocol: int, source: str, target: str, payload: bytes) -> bytes:
    addresses = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(target).packed
    sender = b"\x52\x54\0\x12\x34\x56" if source in (GUEST, "0.0.0.0") else b"\x52\x55\x0a\0\x02\x02"
    return (
        b"\0" * 6 + sender + b"\x08\0" + struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0) + addresses + payload
    )


def tcp(target: str, port: int, flags: int, source: str = GUEST) -> bytes:
    return packet(TCP, source, target, struct.pack(">HHIIBBHHH", 40000, port, 0, 0, 0x50, flags, 0, 0, 0))


def udp(source: str, target: str, source_port: int, port: int, data: bytes = b"") -> bytes:
    return packet(UDP, source, target, struct.pack(">HHHH", source_port, port, 8 + len(data), 0) + data)


def test_only_what_went_past_the_recorder_is_named(tmp_path: Path) -> None:
    question = b"\x03far\x07example\0\0\x01\0\x01"
    answer = struct.pack(">6H", 1, 0x8180, 1, 1, 0, 0) + question + b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4)
    packets = [
        udp(GUEST, NAMES, 5000, 53, b"?"), udp(NAMES, GUEST, 53, 5000, answer + ipaddress.IPv4Address(FAR).packed),
        udp("0.0.0.0", "255.255.255.255", 68, 67), tcp(*RECORDER, 2), tcp(FAR, 443, 2), tcp(FAR, 443, 2), tcp(FAR, 22, 0x12),
        udp(GUEST, "192.0.2.9", 123, 123), tcp(GUEST, 22, 2, RECORDER[0]),
    ]  # fmt: skip
    dump = tmp_path / "dump"
    records = b"".join(struct.pack("<4I", 0, 0, len(each), len(each)) + each for each in packets)
    dump.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 512, 1) + records + b"torn")
    assert [each.title for each in endpoints_in(dump, frozenset({RECORDER}))] == ["far.example:443/tcp", "192.0.2.9:123/udp"]
