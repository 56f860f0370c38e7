"""All records of an image and its ancestors as one value, which can be exported from one catalog and imported into another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from baker.catalog.records import Attestation, BuildRecord, ImageRecord, Rebuild, Revocation, StepRecord
from baker.core.errors import HostError
from baker.core.model import TestOutcome

T = TypeVar("T")


@dataclass(frozen=True)
class Bundle:
    """The records of an image and its ancestors."""

    images: tuple[ImageRecord, ...]  # the image, then its ancestors up to the root
    builds: tuple[BuildRecord, ...]  # in the order of the images, as all the rest
    attestations: tuple[Attestation, ...] = ()
    rebuilds: tuple[Rebuild, ...] = ()
    revocations: tuple[Revocation, ...] = ()  # those of the images themselves that are not undone

    @property
    def image(self) -> ImageRecord:
        return self.images[0]

    def blobs(self) -> dict[str, str]:
        """Digest -> description of every blob that the records refer to."""
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
    """Read a bundle from the JSON of `Bundle.to_json`. HostError when it is malformed or its records are inconsistent."""
    try:
        bundle = Bundle(
            images=tuple(_read(ImageRecord, each, chain=tuple(each["chain"])) for each in value["images"]),
            builds=tuple(_build(each) for each in value["builds"]),
            attestations=tuple(_read(Attestation, each) for each in value["attestations"]),
            rebuilds=tuple(_read(Rebuild, each) for each in value["rebuilds"]),
            revocations=tuple(_read(Revocation, each) for each in value["revocations"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise HostError(
            f"the records cannot be read: {error}",
            hint="a newer bake may have written them: use that",
            code="archive.records-unreadable",
        ) from error
    for fault in _faults(bundle):
        raise HostError(
            f"the records are inconsistent: {fault}", hint="get another copy of the archive", code="archive.records-inconsistent"
        )
    return bundle


def _faults(bundle: Bundle) -> Iterator[str]:
    """The contradictions between the records, in words."""
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
            yield f"image {parent.id} is not the parent of image {image.id}"
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
    """Make a record from its fields. TypeError for a field that this bake does not know."""
    return kind(**{**value, **others})
