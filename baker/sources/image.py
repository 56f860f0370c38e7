"""The source `image`: an image of the catalog."""

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
    """Finds images in the catalog."""

    def peek(self, spec: ImageSource, context: Context) -> SourceImage | None:
        """The image, or None when the catalog has none that answers to the reference."""
        try:
            record = context.catalog.resolve(spec.image)
        except NotFoundError:
            return None
        return _source(record, context)

    def fetch(self, spec: ImageSource, context: Context) -> SourceImage:
        """The image. NotFoundError, saying which template would bake it, when there is none."""
        try:
            record = context.catalog.resolve(spec.image)
        except NotFoundError as error:
            template = _template(spec, context.base_dir)
            hint = f"bake build {template} makes it" if template else "bake images lists what there is"
            raise NotFoundError(error.message, hint=hint) from error
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
    """What machines of the context's builder boot from: the image's disk, or its AMI."""
    try:
        if record.chain and not isinstance(context.builder, Publisher):
            context.store.materialize(record.chain, record.virtual_size)
    except NotFoundError as error:
        raise SourceError(
            f"image {record.name}@{record.version} ({record.id}) is in the catalog, but the store lacks a part of it: {error.message}",
            hint=f"bake rm {record.id} and build it again",
        ) from error
    return media_of(record, context.builder, context.catalog, context.store)


def _template(spec: ImageSource, base_dir: Path) -> Path | None:
    """The template that would bake the image: the one that is named, else NAME.yaml beside this template."""
    name = spec.image.partition("@")[0]
    candidates = [base_dir / spec.template] if spec.template else [base_dir / f"{name}.yaml", base_dir / f"{name}.yml"]
    return next((path for path in candidates if path.is_file()), None)
