"""References to images: `web`, `web@1.4.0`, `web@^1.4`, `web@stable`, an ID, a digest, or a prefix of an ID or digest."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from baker.core.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from semantic_version import Version

HEX = re.compile(r"[0-9a-f]{3,12}")
CHANNEL = re.compile(r"[a-z][a-z0-9._-]*")
LATEST = "latest"  # the newest version
SHOWN = 8  # the number of existing names that an error lists


class Named(Protocol):
    """The properties of an image that a reference can name."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def digest(self) -> str: ...


@dataclass(frozen=True)
class Candidate:
    """The names of an image, without the rest of its record. A catalog can have thousands of them."""

    id: str
    name: str
    version: str
    digest: str


N = TypeVar("N", bound=Named)


class Spec(Protocol):
    """A version constraint."""

    def match(self, version: Version) -> bool: ...


def parse_version(text: str) -> Version | None:
    """Parse a semantic version (semver.org), leniently: "1.4" is 1.4.0. None when `text` is not a version."""
    from semantic_version import Version

    try:
        return Version(text)
    except ValueError:
        pass
    try:
        return Version.coerce(text)
    except ValueError:
        return None


def parse_constraint(text: str) -> Spec | None:
    """Parse `1.4`, `^1.4`, `~1.2`, `>=1,<2`, `>=1 <2`, `1.x || 2.x`; None for anything else."""
    from semantic_version import NpmSpec, SimpleSpec

    for kind in (SimpleSpec, NpmSpec):
        try:
            spec: Spec = kind(text)
        except ValueError:
            continue
        return spec
    return None


def understood(wanted: str) -> bool:
    """Whether `wanted`, the part after the @, is the syntax of a version constraint or a channel."""
    return parse_constraint(wanted) is not None or CHANNEL.fullmatch(wanted) is not None


def by_version(images: Iterable[N]) -> list[N]:
    """Sort images: releases before prereleases, then the newest version first. Equal versions keep their order (last made first)."""
    return sorted(images, key=_rank, reverse=True)


def _rank(image: Named) -> tuple[bool, bool, Version]:
    from semantic_version import Version

    version = parse_version(image.version)
    return (version is not None, version is not None and not version.prerelease, version or Version("0.0.0"))


def resolve(
    reference: str,
    images: Sequence[N],
    channel: Callable[[str, str], N | None] = lambda name, channel: None,
    revoked: Collection[str] = (),
) -> N:
    """The one image of `images` (last made first) that `reference` means. `channel` looks up `name@channel`.

    The part after the @ is interpreted as a version, then as `latest`, then as a constraint, then as a channel; the name of a channel
    cannot look like one of the others. A name alone, `latest` and constraints skip images whose IDs are in `revoked`, unless all are.

    NotFoundError, with the existing names and a suggestion, when there is none. UsageError when a prefix of an ID matches several.
    """
    reference = reference.strip()
    if reference.startswith("sha256:"):
        return _by_digest(reference, images)
    name, at, wanted = reference.partition("@")
    named = [image for image in images if image.name == name]
    if named:
        return _of_name(name, wanted, named, channel, revoked=revoked) if at else _newest(named, revoked)
    if not at and HEX.fullmatch(reference):
        found = [image for image in images if image.id.startswith(reference)]
        if found:
            return _only(reference, found)
    raise _no_name(name, images)


def matches(text: str, name: str, version: str) -> bool:
    """Whether the reference `text` (`web`, `web@1.4.0`, `web@^1.4`) matches an image `name`@`version`, which need not exist yet.

    IDs, digests and channels never match, because they refer to existing images only.
    """
    wanted_name, at, wanted = text.strip().partition("@")
    if wanted_name != name:
        return False
    if not at or wanted in (version, LATEST):
        return True
    spec, parsed = parse_constraint(wanted), parse_version(version)
    return spec is not None and parsed is not None and spec.match(parsed)


def is_channel(text: str) -> bool:
    """Whether `text` is a valid name for a channel: not a version, not a constraint and not `latest`."""
    return bool(CHANNEL.fullmatch(text)) and text != LATEST and parse_constraint(text) is None


def _newest(images: Sequence[N], revoked: Collection[str]) -> N:
    return max([image for image in images if image.id not in revoked] or images, key=_rank)  # the first among equals, which was made last


def _of_name(
    name: str,
    wanted: str,
    named: Sequence[N],
    channel: Callable[[str, str], N | None],
    *,
    revoked: Collection[str],
) -> N:
    exact = [image for image in named if image.version == wanted]
    if exact:
        return exact[0]
    if wanted == LATEST:
        return _newest(named, revoked)
    spec = parse_constraint(wanted)
    if spec is not None:
        fitting = [image for image in named if (version := parse_version(image.version)) and spec.match(version)]
        if fitting:
            return _newest(fitting, revoked)
        raise NotFoundError(f"no version of {name} matches {wanted}", hint=f"there is {_versions(named)}", code="image.version-not-found")
    if CHANNEL.fullmatch(wanted):
        found = channel(name, wanted)
        if found:
            return found
        raise NotFoundError(
            f"{name} has no version or channel {wanted!r}", hint=f"there is {_versions(named)}", code="image.version-not-found"
        )
    raise UsageError(f"{wanted!r} is not a version constraint", hint=examples(name), code="image.reference")


def examples(name: str) -> str:
    """A hint that shows the syntax of constraints."""
    return f"like {name}@1.4.0, {name}@^1.4, {name}@~1.2 or '{name}@>=1,<2'"


def _by_digest(reference: str, images: Sequence[N]) -> N:
    found = [image for image in images if image.digest.startswith(reference) and len(reference) > len("sha256:")]
    if not found:
        raise NotFoundError(
            f"no image has a digest that begins with {reference}", hint="`bake images` lists all images", code="image.not-found"
        )
    if len({image.digest for image in found}) == 1:
        return found[0]
    return _only(reference, found)


def _only(reference: str, found: Sequence[N]) -> N:
    if len(found) > 1:
        shown = "".join(f"\n    {image.id}  {image.name}@{image.version}  {image.digest[:19]}" for image in found[:SHOWN])
        raise UsageError(f"{reference} matches {len(found)} images:{shown}", hint="give more digits", code="image.ambiguous")
    return found[0]


def _no_name(name: str, images: Sequence[Named]) -> NotFoundError:
    names = list(dict.fromkeys(image.name for image in images))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if not names:
        return NotFoundError(
            f"there is no image {name!r}",
            hint="the catalog is empty: `bake build TEMPLATE` makes the first image",
            code="image.not-found",
        )
    return NotFoundError(
        f"there is no image {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
        hint=f"there is {_listed(sorted(names))}",
        code="image.not-found",
    )


def _versions(named: Sequence[Named]) -> str:
    return _listed(list(dict.fromkeys(f"{image.name}@{image.version}" for image in by_version(named))))


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
