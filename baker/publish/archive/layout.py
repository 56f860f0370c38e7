"""The format of an archive: a tar file (pax) with the following members in this order.

    manifest.json           {"format": "bake-archive", "version": 1, "image": ID, "title": "web@1.4.0",
                             "members": {name: {"sha256": hex, "size": bytes}}}, with all members that follow
    records.json            the records of the image and its ancestors, and of their builds, attestations, rebuilds and revocations
    keys/NAME.pub           the public keys that made the signatures
    blobs/sha256/HEX        disks, evidence, downloads, envelopes and reports, in the order of their digests

The tar file is not compressed, because disks and evidence already are. Times, owners and modes are constant, so equal records give equal
bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from baker.core.errors import HostError

FORMAT, VERSION = "bake-archive", 1
MANIFEST, RECORDS, KEYS, BLOBS = "manifest.json", "records.json", "keys/", "blobs/sha256/"
LARGEST_TEXT = 1 << 29  # bytes: a larger manifest or larger records are refused
LARGEST_KEY = 1 << 16


@dataclass(frozen=True)
class Member:
    """A file of an archive."""

    name: str
    sha256: str  # 64 hex digits
    size: int


@dataclass(frozen=True)
class Manifest:
    """The table of contents of an archive."""

    image: str  # its ID
    title: str  # "web@1.4.0"
    members: tuple[Member, ...]  # in their order

    def dump(self) -> bytes:
        members = {each.name: {"sha256": each.sha256, "size": each.size} for each in self.members}
        value = {"format": FORMAT, "version": VERSION, "image": self.image, "title": self.title, "members": members}
        return (json.dumps(value, indent=1) + "\n").encode()


def parse(data: bytes) -> Manifest:
    """Parse a manifest. HostError when it is not one, or was written by a newer bake."""
    try:
        value: Mapping[str, Any] = json.loads(data)
        if value["format"] != FORMAT:
            raise ValueError(f"its format is {value['format']!r}")
        if value["version"] != VERSION:
            raise HostError(
                f"the archive has version {value['version']}, but this bake reads only version {VERSION}",
                hint="use a newer bake",
                code="archive.version",
            )
        members = tuple(Member(str(name), str(each["sha256"]), int(each["size"])) for name, each in value["members"].items())
        return Manifest(str(value["image"]), str(value["title"]), members)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HostError(f"it is not a bake archive: {error}", hint="bake archive IMAGE writes one", code="archive.invalid") from error


def blob_member(digest: str) -> str:
    """The name of the member for a blob's digest ("sha256:ab...")."""
    return BLOBS + digest.removeprefix("sha256:")
