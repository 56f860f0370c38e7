"""The source `image`: an image in the catalog."""

from __future__ import annotations

from pathlib import Path

from baker.catalog.records import ImageRecord
from baker.core.errors import NotFoundError, SourceError
from baker.core.model import Disk, Media, SourceImage
from baker.machines.base import Publisher
from baker.machines.media import media_of
from baker.sources.base import Context
from baker.template.model import ImageSource


class Image:
    """Find images in the catalog."""

    def peek(self, spec: ImageSource, context: Context) -> SourceImage | None:
        """The image, or None when the reference resolves to none in the catalog."""
        try:
            record = context.catalog.resolve(spec.image)
        except NotFoundError:
            return None
        return _source(record, context)

    def fetch(self, spec: ImageSource, context: Context) -> SourceImage:
        """The image. When there is none, NotFoundError with a hint that names the template that would bake it."""
        try:
            record = context.catalog.resolve(spec.image)
        except NotFoundError as error:
            template = _template(spec, context.base_dir)
            hint = f"bake build {template} makes it" if template else "bake images lists the images in the catalog"
            raise NotFoundError(error.message, hint=hint, code=error.code) from error
        return _source(record, context)


def _source(record: ImageRecord, context: Context) -> SourceImage:
    context.catalog.check_usable(record, "as a source")
    media = _media(record, context)
    return SourceImage(
        kind="image",
        title=f"{record.name}@{record.version}",
        digest=record.digest,
        media=media,
        pins={"image": record.name, "version": record.version, "id": record.id, "digest": record.digest} | _pins(media),
        parent=record.id,
        ssh_username=record.ssh_username,
        chain=record.chain if isinstance(media, Disk) else (),
    )


def _pins(media: Media) -> dict[str, str]:
    if isinstance(media, Disk):
        return {}
    return {"ami": media.id, "region": media.region, "owner": media.owner, "creation_date": media.creation_date}


def _media(record: ImageRecord, context: Context) -> Media:
    """What the machines of the context's builder boot from: the image's disk or its AMI. SourceError when the store lacks a blob of it."""
    try:
        if record.chain and not isinstance(context.builder, Publisher):
            context.store.materialize(record.chain, record.virtual_size)
    except NotFoundError as error:
        raise SourceError(
            f"image {record.name}@{record.version} ({record.id}) is in the catalog, but the store lacks a part of it: {error.message}",
            hint=f"remove it with `bake rm {record.id}` and build it again",
            code="source.image-incomplete",
        ) from error
    return media_of(record, context.builder, context.catalog, context.store)


def _template(spec: ImageSource, base_dir: Path) -> Path | None:
    """The template that would bake the image: the one that the source names, else NAME.yaml or NAME.yml beside this template."""
    name = spec.image.partition("@")[0]
    candidates = [base_dir / spec.template] if spec.template else [base_dir / f"{name}.yaml", base_dir / f"{name}.yml"]
    return next((path for path in candidates if path.is_file()), None)
