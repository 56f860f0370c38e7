"""The two sides of `bake diff`: images by what is on record of them, layers and running shells by their disks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from baker.artifacts.codecs import read_manifest, read_packages
from baker.artifacts.disk import stored
from baker.catalog.records import BuildRecord, ImageRecord
from baker.core.errors import NotFoundError
from baker.core.model import Disk
from baker.disks.manifest import file_manifest
from baker.disks.packages.installed import installed_packages
from baker.disks.rootfs import open_root
from baker.explain.diff import Tree

if TYPE_CHECKING:
    from baker.store.base import BlobStore


@contextmanager
def of_image(store: BlobStore, image: ImageRecord, build: BuildRecord) -> Iterator[Tree]:
    """An image, by the evidence of its build; its disk is only opened for the text of files."""
    title = f"{image.name}@{image.version}"
    if "manifest" not in build.evidence:
        raise NotFoundError(f"no list of the files of {title} ({image.id}) is on record", hint="bake could not read its file system")
    with store.open(build.evidence["manifest"]) as blob:
        entries = list(read_manifest(blob))
    with store.open(build.evidence["packages_after"]) as blob:
        found = read_packages(blob)
    with ExitStack() as stack:
        opened = stack.enter_context(open_root(stored(image, store))) if image.chain and not image.removed else None
        yield Tree(title, entries, found.packages, opened.read if opened else lambda path: None, found.unread)


@contextmanager
def of_disk(title: str, disk: Disk, scratch: Path | None = None) -> Iterator[Tree]:
    """A disk that was not unmounted: a layer's, or a copy of a running machine's."""
    with open_root(disk, scratch=scratch, replay=True) as root:
        entries = list(file_manifest(disk, scratch=scratch, replay=True))
        found = installed_packages(root)
        yield Tree(title, entries, found.packages, root.read, found.unread)
