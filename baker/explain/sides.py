"""The sides of `bake diff`: an image is read from its build's evidence, a layer or a running shell from its disk."""

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
    """The file tree of an image, from the evidence of its build. Its disk, if it is here, is used for the content of files.

    NotFoundError when the evidence has no file manifest.
    """
    title = f"{image.name}@{image.version}"
    if "manifest" not in build.evidence:
        raise NotFoundError(
            f"no file manifest of the image {title} ({image.id}) is on record",
            hint="bake could not read its file system when it was built",
            code="image.no-manifest",
        )
    with store.open(build.evidence["manifest"]) as blob:
        entries = list(read_manifest(blob))
    with store.open(build.evidence["packages_after"]) as blob:
        listed = read_packages(blob)
    with ExitStack() as stack:
        root = stack.enter_context(open_root(stored(image, store))) if image.chain and not image.removed else None
        yield Tree(title, entries, listed.packages, root.read if root else lambda path: None, listed.unread)


@contextmanager
def of_disk(title: str, disk: Disk, scratch: Path | None = None) -> Iterator[Tree]:
    """The file tree of a disk that need not be unmounted: of a layer, or a copy of the disk of a running machine."""
    with open_root(disk, scratch=scratch, replay=True) as root:
        entries = list(file_manifest(disk, scratch=scratch, replay=True))
        listed = installed_packages(root)
        yield Tree(title, entries, listed.packages, root.read, listed.unread)
