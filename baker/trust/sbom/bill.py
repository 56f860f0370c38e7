"""The bill of materials of an image of the catalog: what is in it, and which of the images that it is made on it came with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from baker.artifacts.disk import stored
from baker.catalog.catalog import Catalog
from baker.catalog.records import ImageRecord
from baker.core.errors import HostError
from baker.disks.ext4.reader import UnsupportedFilesystem
from baker.disks.rootfs import open_root
from baker.store.base import BlobStore
from baker.trust.sbom.components import Component, Distribution, components, distribution

FORMATS = ("cyclonedx", "spdx")


@dataclass(frozen=True)
class Level:
    """An image, and the components that it brought: those that are in it and all images above, but not in the one it is made on."""

    image: ImageRecord
    components: tuple[Component, ...]


@dataclass(frozen=True)
class Bill:
    """`levels`: the image itself first, its root last. `notes`: what could not be read."""

    image: ImageRecord
    levels: tuple[Level, ...]
    system: Distribution = field(default_factory=Distribution)
    notes: tuple[str, ...] = ()


def bill(image: ImageRecord, catalog: Catalog, store: BlobStore) -> Bill:
    """Read the disks. NotFoundError when the image has none here, HostError when bake cannot read its file system."""
    line = catalog.history(image)
    found: dict[str, list[Component]] = {}
    notes: list[str] = []
    system = Distribution()
    for each in line:
        try:
            with open_root(stored(each, store)) as root:
                found[each.id], remarks = components(root)
                system = distribution(root) if each is line[0] else system
        except UnsupportedFilesystem as error:
            if each is line[0]:
                raise HostError(f"{each.name}@{each.version}: {error}") from error
            notes.append(f"{each.name}@{each.version}: {error}; what it brought is not told apart")
            break
        notes += remarks if each is line[0] else []
    return Bill(image, attribute(line, found), system, tuple(notes))


def attribute(line: Sequence[ImageRecord], found: Mapping[str, Sequence[Component]]) -> tuple[Level, ...]:
    """Give each component of the first image to the one furthest up that has it, with all between them."""
    sets = [set(found.get(image.id, ())) for image in line]
    brought: list[list[Component]] = [[] for _ in line]
    for component in found[line[0].id]:
        depth = 0
        while depth + 1 < len(line) and component in sets[depth + 1]:
            depth += 1
        brought[depth].append(component)
    return tuple(Level(image, tuple(each)) for image, each in zip(line, brought, strict=True))
