"""What people type for an image: `web`, `web@1.4.0`, `web@^1.4`, `web@stable`, an id, a digest, or the beginning of those."""

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
SHOWN = 8  # how many existing things an error lists


class Named(Protocol):
    """What of an image a reference can mean."""

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
    """The names of an image, without the rest of its record: of those there can be thousands."""

    id: str
    name: str
    version: str
    digest: str


N = TypeVar("N", bound=Named)


class Spec(Protocol):
    """A version constraint."""

    def match(self, version: Version) -> bool: ...


def parse_version(text: str) -> Version | None:
    """A semantic version (semver.org), leniently ("1.4" is 1.4.0); None where there is none in it."""
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
    """`1.4`, `^1.4`, `~1.2`, `>=1,<2`, `>=1 <2`, `1.x || 2.x`; None for anything else."""
    from semantic_version import NpmSpec, SimpleSpec

    for kind in (SimpleSpec, NpmSpec):
        try:
            spec: Spec = kind(text)
        except ValueError:
            continue
        return spec
    return None


def understood(wanted: str) -> bool:
    """Whether `wanted`, what stands after the @, can mean a version or a channel at all."""
    return parse_constraint(wanted) is not None or CHANNEL.fullmatch(wanted) is not None


def by_version(images: Iterable[N]) -> list[N]:
    """Newest version first, releases before prereleases; the last made first among equals. `images` are the last made first."""
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
    """The one image that `reference` means, of `images` (last made first). `channel` looks up `name@channel`.

    What stands after the @ is first taken for a version, then `latest`, then a constraint, then a channel: no channel can be named
    like one of the others. A name alone, `latest` and constraints pass over the images with ids in `revoked` while there are others.

    NotFoundError with what there is and what may have been meant; UsageError when the beginning of an id fits several.
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
    """Whether `text` (`web`, `web@1.4.0`, `web@^1.4`) fits an image that is or would be `name`@`version`. An id, a digest and a
    channel fit nothing: they name what exists."""
    wanted_name, at, wanted = text.strip().partition("@")
    if wanted_name != name:
        return False
    if not at or wanted in (version, LATEST):
        return True
    spec, parsed = parse_constraint(wanted), parse_version(version)
    return spec is not None and parsed is not None and spec.match(parsed)


def is_channel(text: str) -> bool:
    """Whether a channel can have this name: one that is no version, no constraint and not `latest`."""
    return bool(CHANNEL.fullmatch(text)) and text != LATEST and parse_constraint(text) is None


def _newest(images: Sequence[N], revoked: Collection[str]) -> N:
    return max([image for image in images if image.id not in revoked] or images, key=_rank)  # of equals the first: the last made


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
        raise NotFoundError(f"no version of {name} is {wanted}", hint=f"there is {_versions(named)}")
    if CHANNEL.fullmatch(wanted):
        found = channel(name, wanted)
        if found:
            return found
        raise NotFoundError(f"{name} has no version or channel {wanted!r}", hint=f"there is {_versions(named)}")
    raise UsageError(f"{wanted!r} is no version constraint", hint=examples(name))


def examples(name: str) -> str:
    """How a constraint is written."""
    return f"like {name}@1.4.0, {name}@^1.4, {name}@~1.2 or '{name}@>=1,<2'"


def _by_digest(reference: str, images: Sequence[N]) -> N:
    found = [image for image in images if image.digest.startswith(reference) and len(reference) > len("sha256:")]
    if not found:
        raise NotFoundError(f"no image has a digest that begins with {reference}", hint="`bake images` lists them")
    if len({image.digest for image in found}) == 1:
        return found[0]
    return _only(reference, found)


def _only(reference: str, found: Sequence[N]) -> N:
    if len(found) > 1:
        shown = "".join(f"\n    {image.id}  {image.name}@{image.version}  {image.digest[:19]}" for image in found[:SHOWN])
        raise UsageError(f"{reference} fits {len(found)} images:{shown}", hint="type more of it")
    return found[0]


def _no_name(name: str, images: Sequence[Named]) -> NotFoundError:
    names = list(dict.fromkeys(image.name for image in images))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if not names:
        return NotFoundError(f"there is no image {name!r}", hint="the catalog is empty: `bake build TEMPLATE` makes the first image")
    return NotFoundError(
        f"there is no image {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""), hint=f"there is {_listed(sorted(names))}"
    )


def _versions(named: Sequence[Named]) -> str:
    return _listed(list(dict.fromkeys(f"{image.name}@{image.version}" for image in by_version(named))))


def _listed(things: Sequence[str]) -> str:
    rest = len(things) - SHOWN
    return ", ".join(things[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
