"""CRC-32C (RFC 3720, appendix B.4) as ext4 and its journal use it: the bare register, not inverted before or after."""

from __future__ import annotations

import google_crc32c

ALL_ONES = 0xFFFFFFFF


def crc32c(register: int, *pieces: bytes) -> int:
    """The register after `pieces`, starting from `register`."""
    value = register ^ ALL_ONES
    for piece in pieces:
        value = google_crc32c.extend(value, piece)
    return int(value) ^ ALL_ONES
