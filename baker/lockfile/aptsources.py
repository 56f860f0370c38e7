"""The package sources of apt in an image: sources.list(5), in one-line style and in deb822 style, read from its disk."""

from __future__ import annotations

import re
from collections.abc import Iterator

from baker.disks.rootfs import Root
from baker.lockfile.candidates import Listing

LIST, DIRECTORY = "/etc/apt/sources.list", "/etc/apt/sources.list.d"
LINE = re.compile(r"deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)((?:\s+[^\s#]+)*)")


def of_root(root: Root, architecture: str) -> tuple[Listing, ...]:
    """The HTTP indexes of binary packages, in the order of the files."""
    names = [LIST, *(f"{DIRECTORY}/{name}" for name in root.names(DIRECTORY))]
    listings: list[Listing] = []
    for name in names:
        text = (root.read(name) or b"").decode(errors="replace")
        listings += (
            stanzas(text, architecture) if name.endswith(".sources") else lines(text, architecture) if name.endswith(".list") else ()
        )
    return tuple(dict.fromkeys(listings))


def lines(text: str, architecture: str) -> Iterator[Listing]:
    """One-line style: `deb [options] URI suite component...`."""
    for line in text.splitlines():
        if match := LINE.match(line.strip()):
            yield from _listings([match[1]], [match[2]], match[3].split(), architecture)


def stanzas(text: str, architecture: str) -> Iterator[Listing]:
    """deb822 style: stanzas of fields."""
    for stanza in re.split(r"\n\s*\n", text):
        kept = "\n".join(line for line in stanza.splitlines() if not line.startswith("#"))
        fields = {name.lower(): words.split() for name, words in re.findall(r"^([A-Za-z-]+):((?:.*(?:\n[ \t].*)*))", kept, re.M)}
        if "deb" in fields.get("types", []) and fields.get("enabled", ["yes"]) != ["no"]:
            yield from _listings(fields.get("uris", []), fields.get("suites", []), fields.get("components", []), architecture)


def _listings(places: list[str], suites: list[str], components: list[str], architecture: str) -> Iterator[Listing]:
    for place in places:
        for suite in suites:
            if place.startswith("http") and not suite.endswith("/"):  # a flat repository has no components
                base = f"{place.rstrip('/')}/dists/{suite}/InRelease"
                yield from (Listing(base, f"{component}/binary-{architecture}/Packages") for component in components)
