"""What is in an archive: a plain tar file (pax, no compression: disks and evidence are compressed already), its members in this order.

    manifest.json           {"format": "bake-archive", "version": 1, "image": ID, "title": "web@1.4.0",
                             "members": {name: {"sha256": hex, "size": bytes}}} of all that follows
    records.json            the records of the image, of all that it is made on, of their builds, statements, rebuilds, revocations
    keys/NAME.pub           the public keys of whoever signed
    blobs/sha256/HEX        disks, evidence, what was fetched, envelopes, reports; in order of their digests

Times, owners and modes are constant: the same records make the same file, byte by byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from baker.core.errors import HostError

FORMAT, VERSION = "bake-archive", 1
MANIFEST, RECORDS, KEYS, BLOBS = "manifest.json", "records.json", "keys/", "blobs/sha256/"
LARGEST_TEXT = 1 << 29  # bytes of a manifest, and of records, that are read at all
LARGEST_KEY = 1 << 16


@dataclass(frozen=True)
class Member:
    """A file of an archive."""

    name: str
    sha256: str  # 64 hex digits
    size: int


@dataclass(frozen=True)
class Manifest:
    """What an archive says of itself."""

    image: str
    title: str  # "web@1.4.0"
    members: tuple[Member, ...]  # in their order

    def dump(self) -> bytes:
        members = {each.name: {"sha256": each.sha256, "size": each.size} for each in self.members}
        value = {"format": FORMAT, "version": VERSION, "image": self.image, "title": self.title, "members": members}
        return (json.dumps(value, indent=1) + "\n").encode()


def parse(data: bytes) -> Manifest:
    """HostError for what is none, or of a newer bake."""
    try:
        value: Mapping[str, Any] = json.loads(data)
        if value["format"] != FORMAT:
            raise ValueError(f"its format is {value['format']!r}")
        if value["version"] != VERSION:
            raise HostError(f"the archive has version {value['version']}; this bake knows {VERSION}", hint="a newer bake can read it")
        members = tuple(Member(str(name), str(each["sha256"]), int(each["size"])) for name, each in value["members"].items())
        return Manifest(str(value["image"]), str(value["title"]), members)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HostError(f"it is no archive of bake: {error}", hint="bake archive IMAGE writes one") from error


def blob_member(digest: str) -> str:
    """ "sha256:ab..." -> its name in an archive."""
    return BLOBS + digest.removeprefix("sha256:")
