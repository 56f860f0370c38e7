"""The bill of materials of an image: the software in it, and which of its ancestors each component comes from."""

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
    """An image, and the components that it added: those in it and in all its descendants in the bill, but not in its parent."""

    image: ImageRecord
    components: tuple[Component, ...]


@dataclass(frozen=True)
class Bill:
    """What is in `image`. `levels`: the image itself first, then its ancestors, the oldest last. `notes`: what could not be read."""

    image: ImageRecord
    levels: tuple[Level, ...]
    system: Distribution = field(default_factory=Distribution)
    notes: tuple[str, ...] = ()


def bill(image: ImageRecord, catalog: Catalog, store: BlobStore) -> Bill:
    """The bill of an image, read from its disk and its ancestors' disks. NotFoundError when its disk is not on this host, HostError
    when bake cannot read the disk's file system."""
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
                raise HostError(f"{each.name}@{each.version}: {error.message}", code="disk.unsupported-filesystem") from error
            notes.append(f"{each.name}@{each.version}: {error.message}; its components are not told apart from those of its descendants")
            break
        notes += remarks if each is line[0] else []
    return Bill(image, attribute(line, found), system, tuple(notes))


def attribute(line: Sequence[ImageRecord], found: Mapping[str, Sequence[Component]]) -> tuple[Level, ...]:
    """Assign each component of the first image to its oldest ancestor from which every image down to the first has the component."""
    sets = [set(found.get(image.id, ())) for image in line]
    added: list[list[Component]] = [[] for _ in line]
    for component in found[line[0].id]:
        depth = 0
        while depth + 1 < len(line) and component in sets[depth + 1]:
            depth += 1
        added[depth].append(component)
    return tuple(Level(image, tuple(each)) for image, each in zip(line, added, strict=True))
