"""What a run has to bake, and in which order: what was asked for, and the missing images that it starts from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from baker.catalog.reference import matches
from baker.errors import BakeError, NotFoundError, TemplateError, UsageError
from baker.events import TemplateRejected
from baker.layers import policy
from baker.requests import BuildRequest
from baker.schedule import Ended, Node, find_template, key_of, order, ways_out
from baker.template.model import ImageSource, Template

if TYPE_CHECKING:
    from baker.api import Baker
    from baker.catalog.catalog import Catalog


def graph(baker: Baker, requests: Sequence[BuildRequest], *, fail_fast: bool) -> list[Node]:
    """The nodes of a run: what was asked for and the missing images below it, those first.

    Where an image that a template starts from cannot be had, that is raised; without `fail_fast` it is that node's end.
    """
    asked = [(template, request) for request in requests for template in baker.load_request(request)]
    for template, request in asked:
        policy.wish([step.name for step in template.provisioners], first=request.first, last=request.last)
    nodes: dict[str, Node] = {}
    pending = list(asked)
    while pending:
        template, request = pending.pop(0)
        key = key_of(template)
        if key in nodes:
            continue
        below, end = None, None
        try:
            below = parent_of(template, [each for each, _ in asked if each is not template], baker.catalog, baker.load)
        except BakeError as error:
            if fail_fast:
                raise
            if isinstance(error, TemplateError):
                baker.sink.emit(TemplateRejected(problems=error.to_json()))
            end = Ended(key, error.exit_code, error=str(error))
        if below is not None:
            pending.append((below, BuildRequest(below.path, uri=request.uri, accelerator=request.accelerator)))
        home = {f.name: str(getattr(baker.home, f.name)) for f in fields(baker.home)}
        needs = frozenset({key_of(below)} if below is not None else ())
        nodes[key] = Node(key, template, request.to_json() | {"select": template.name, "home": home}, needs, end)
    return order(list(nodes.values()))


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
