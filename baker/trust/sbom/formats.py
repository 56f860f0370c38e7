"""The formats that a bill of materials is written in."""

from __future__ import annotations

from baker.trust.sbom.bill import Bill


def write(found: Bill, format: str) -> str:  # noqa: A002 - as in bake export
    """The bill as a JSON document in one of baker.trust.sbom.bill.FORMATS: the same text for the same image."""
    if format == "spdx":
        from baker.trust.sbom import spdx

        return spdx.write(found)
    from baker.trust.sbom import cyclone

    return cyclone.write(found)
