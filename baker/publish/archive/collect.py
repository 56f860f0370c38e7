"""Collect the records of an image for an archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baker.catalog.bundle import Bundle
from baker.catalog.records import ImageRecord

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog


def gather(catalog: Catalog, image: ImageRecord) -> Bundle:
    """All records of an image and its ancestors. NotFoundError when one of their builds is not on record."""
    line = catalog.history(image)
    rebuilds = [rebuild for each in line for rebuild in catalog.proofs.rebuilds(each.id)]
    past = catalog.proofs.revocations([each.id for each in line])
    return Bundle(
        images=line,
        builds=tuple(catalog.build_of(each) for each in line),
        attestations=tuple(made for each in line for made in catalog.attestations.of(each.id)),
        rebuilds=tuple(rebuilds),
        revocations=tuple(each.revocation for each in past if each.undone is None),
    )
