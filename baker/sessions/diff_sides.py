"""The sides of a `bake diff`: an image, a layer, or the disk of a running ephemeral machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from baker.build.services import Services
from baker.core.errors import NotFoundError
from baker.core.model import Disk
from baker.disks import qemuimg
from baker.explain import sides
from baker.explain.diff import Tree
from baker.layers.find import find
from baker.sessions.running import PREFIX, copy_disk, shell_of

LAYER = "layer:"


@contextmanager
def side(services: Services, text: str) -> Iterator[Tree]:
    """Open the file tree that `text` names: `shell:ID`, `layer:NAME@STEP`, an image, or NAME@STEP if no image has that name."""
    from baker.sessions.ephemeral import session

    if text.startswith(PREFIX):
        shell = shell_of(services.home, text)
        image = services.catalog.image(shell.image)
        with session(services) as (_, scratch, _):
            disk = copy_disk(services, shell, image, scratch / "copy.qcow2")
            with sides.of_disk(f"{PREFIX}{shell.id} ({image.name}@{image.version})", disk, scratch) as tree:
                yield tree
        return
    if not text.startswith(LAYER):
        try:
            image = services.catalog.resolve(text)
        except NotFoundError as error:
            if "@" not in text:
                raise
            try:
                find(services.catalog, services.layers, text)
            except NotFoundError:
                raise error from None
        else:
            with sides.of_image(services.store, image, services.catalog.build_of(image)) as tree:
                yield tree
            return
    with _layer(services, text.removeprefix(LAYER)) as tree:
        yield tree


@contextmanager
def _layer(services: Services, reference: str) -> Iterator[Tree]:
    store = services.layers
    layer, _ = find(services.catalog, store, reference)
    with store.using(layer) as there:
        if not there:
            raise NotFoundError(f"the layer {layer.id} has just been removed", code="layer.not-found")
        disk = layer.directory / "disk.qcow2"
        title = f"{layer.record.template} after step {layer.record.step} ({layer.record.name})"
        with sides.of_disk(title, Disk(disk, "qcow2", qemuimg.info(disk, "qcow2").virtual_size)) as tree:
            yield tree
