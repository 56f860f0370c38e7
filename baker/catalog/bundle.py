"""All records of an image and of what it is made on, as one value that can leave the catalog and come into another one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from baker.catalog.records import Attestation, BuildRecord, ImageRecord, Rebuild, Revocation, StepRecord
from baker.core.errors import HostError
from baker.core.model import TestOutcome

if TYPE_CHECKING:
    pass

T = TypeVar("T")


@dataclass(frozen=True)
class Bundle:
    """`images`: the image itself, then what it is made on, up to the root; `builds` in the same order; the rest in order of the images."""

    images: tuple[ImageRecord, ...]
    builds: tuple[BuildRecord, ...]
    attestations: tuple[Attestation, ...] = ()
    rebuilds: tuple[Rebuild, ...] = ()
    revocations: tuple[Revocation, ...] = ()  # of these very images, those that are not undone

    @property
    def image(self) -> ImageRecord:
        return self.images[0]

    def blobs(self) -> dict[str, str]:
        """Every blob that the records refer to -> what it is."""
        found: dict[str, str] = {}
        for image, build in zip(self.images, self.builds, strict=True):
            for digest in image.chain:
                found.setdefault(digest, f"a disk of image {image.id}")
            for name, digest in build.evidence.items():
                found.setdefault(digest, f"evidence {name!r} of build {build.id}")
        found |= {each.digest: f"a statement about image {each.image}" for each in self.attestations}
        return found | {each.report: f"the report of a rebuild of image {each.image}" for each in self.rebuilds}

    def to_json(self) -> dict[str, Any]:
        return {each.name: [asdict(record) for record in getattr(self, each.name)] for each in fields(self)}


def from_json(value: Mapping[str, Any]) -> Bundle:
    """HostError for what is no such value, or does not hang together: then nothing of it may come into a catalog."""
    try:
        bundle = Bundle(
            images=tuple(_read(ImageRecord, each, chain=tuple(each["chain"])) for each in value["images"]),
            builds=tuple(_build(each) for each in value["builds"]),
            attestations=tuple(_read(Attestation, each) for each in value["attestations"]),
            rebuilds=tuple(_read(Rebuild, each) for each in value["rebuilds"]),
            revocations=tuple(_read(Revocation, each) for each in value["revocations"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise HostError(f"the records cannot be read: {error}", hint="a newer bake may have written them") from error
    for fault in _faults(bundle):
        raise HostError(f"the records do not fit together: {fault}")
    return bundle


def _faults(bundle: Bundle) -> Iterator[str]:
    if not bundle.images or len(bundle.images) != len(bundle.builds):
        yield f"{len(bundle.images)} images, {len(bundle.builds)} builds"
        return
    for image, build in zip(bundle.images, bundle.builds, strict=True):
        if image.build != build.id:
            yield f"image {image.id} was made by build {image.build}, not by {build.id}"
        if not image.chain:
            yield f"image {image.id} has no disk"
    for image, parent in zip(bundle.images, bundle.images[1:], strict=False):
        if image.parent != parent.id or image.chain[1:] != parent.chain:
            yield f"image {image.id} is not made on image {parent.id}"
    if bundle.images[-1].parent is not None:
        yield f"image {bundle.images[-1].parent} is missing"
    known = {image.id for image in bundle.images}
    about = (
        {each.image for each in bundle.attestations}
        | {each.image for each in bundle.rebuilds}
        | {each.image for each in bundle.revocations}
    )
    for missing in sorted(about - known):
        yield f"image {missing} is missing"


def _build(value: Mapping[str, Any]) -> BuildRecord:
    steps = tuple(_read(StepRecord, each) for each in value["steps"])
    return _read(BuildRecord, value, steps=steps, tests=tuple(_read(TestOutcome, each) for each in value["tests"]))


def _read(kind: type[T], value: Mapping[str, Any], **others: Any) -> T:
    """TypeError for a field that this bake does not know."""
    return kind(**{**value, **others})
