"""The template that bakes the image which another template starts from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from baker.catalog.reference import matches
from baker.errors import NotFoundError, UsageError
from baker.schedule import find_template, ways_out
from baker.template.model import ImageSource, Template

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog


def parent_of(
    template: Template, asked: Sequence[Template], catalog: Catalog, load: Callable[[Path], Sequence[Template]]
) -> Template | None:
    """The template that bakes the image that `template` starts from: one that is asked for too, else one of an image that is
    missing. None where nothing needs to be baked; NotFoundError or UsageError when the image cannot be had."""
    if not isinstance(template.source, ImageSource):
        return None
    reference = template.source.image
    below = next((each for each in asked if matches(reference, each.name, each.version)), None)
    if below is not None:
        return below
    try:
        catalog.resolve(reference)
    except NotFoundError as error:
        below = find_template(template.source, template, load)
        if below is None:
            raise NotFoundError(f"{template.path.name}: {error.message}", hint=ways_out(template, reference, error.hint)) from error
        if not matches(reference, below.name, below.version):
            raise UsageError(
                f"{template.path.name} starts from {reference}, but {below.path.name} bakes {below.name}@{below.version}"
            ) from None
    return below
