"""The builds of a run in order: the requested images, and before them the missing images that they start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from baker.catalog.reference import matches
from baker.core.errors import BakeError, NotFoundError, TemplateError, UsageError
from baker.core.events import BuildFinished, TemplateRejected
from baker.plan.requests import BuildOptions, BuildRequest
from baker.plan.step_range import layer_options
from baker.template.model import ImageSource, Template

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog
    from baker.core.events import Sink
    from baker.core.home import Home


class Templates(Protocol):
    """Loads templates and knows the existing images; `baker.Baker` implements it."""

    home: Home
    sink: Sink

    @property
    def catalog(self) -> Catalog: ...

    def load(self, path: Path, /) -> Sequence[Template]: ...

    def load_request(self, request: BuildRequest, /) -> Sequence[Template]: ...


def graph(baker: Templates, requests: Sequence[BuildRequest], *, fail_fast: bool) -> list[BuildNode]:
    """The builds of a run: the requested images and the missing images that they start from, each after what it needs.

    When the image that a template starts from is missing and no template builds it, the error is raised. Without `fail_fast`, it is stored
    as the result of that build instead.
    """
    requested = [(template, request) for request in requests for template in baker.load_request(request)]
    for template, request in requested:
        layer_options(template, request.options)  # report a step that does not exist before anything begins
    nodes: dict[str, BuildNode] = {}
    pending = list(requested)
    while pending:
        template, request = pending.pop(0)
        key = key_of(template)
        if key in nodes:
            continue
        parent, end = None, None
        try:
            parent = parent_of(template, [each for each, _ in requested if each is not template], baker.catalog, baker.load)
        except BakeError as error:
            if fail_fast:
                raise
            if isinstance(error, TemplateError):
                baker.sink.emit(TemplateRejected(problems=error.to_json()))
            end = Ended(key, error.exit_code, error=str(error), code=error.code)
        if parent is not None:
            pending.append(
                (parent, BuildRequest(parent.path, options=BuildOptions(uri=request.options.uri, accelerator=request.options.accelerator)))
            )
        home = {f.name: str(getattr(baker.home, f.name)) for f in fields(baker.home)}
        needs = frozenset({key_of(parent)} if parent is not None else ())
        nodes[key] = BuildNode(key, template, request.to_json() | {"select": template.name, "home": home}, needs, end)
    return order(list(nodes.values()))


def parent_of(
    template: Template, requested: Sequence[Template], catalog: Catalog, load: Callable[[Path], Sequence[Template]]
) -> Template | None:
    """The template of the image that `template` starts from, if that has to be built: one of `requested`, else that of a missing image.

    None when nothing has to be built. NotFoundError when no template builds a missing image, UsageError when the one that does builds a
    version that does not match.
    """
    if not isinstance(template.source, ImageSource):
        return None
    reference = template.source.image
    parent = next((each for each in requested if matches(reference, each.name, each.version)), None)
    if parent is not None:
        return parent
    try:
        catalog.resolve(reference)
    except NotFoundError as error:
        parent = find_template(template.source, template, load)
        if parent is None:
            message, hint = f"{template.path.name}: {error.message}", missing_image_hint(template, reference, error.hint)
            raise NotFoundError(message, hint=hint, code="plan.missing-parent") from error
        if not matches(reference, parent.name, parent.version):
            raise UsageError(
                f"{template.path.name} starts from {reference}, but {parent.path.name} bakes {parent.name}@{parent.version}",
                hint="change the reference, or the version in that template",
                code="plan.parent-version",
            ) from None
    return parent


@dataclass(frozen=True)
class Ended:
    """The result of one build of a run. `exit_code` is 0 for success; a `skipped` build was never begun."""

    key: str
    exit_code: int
    finished: BuildFinished | None = None
    error: str = ""
    code: str = ""  # of the error, see docs/errors.md
    skipped: bool = False


@dataclass(frozen=True)
class BuildNode:
    """One build of a run. `needs` are the keys of the builds whose images it starts from."""

    key: str
    template: Template
    request: Mapping[str, Any]  # the JSON for the worker process that builds it: see baker/cli/worker.py
    needs: frozenset[str] = field(default_factory=frozenset)
    ended: Ended | None = None  # its result, when it failed before it could begin


def key_of(template: Template) -> str:
    return f"{template.path}#{template.name}"


def order(nodes: Sequence[BuildNode]) -> list[BuildNode]:
    """Sort the nodes so that each comes after those that it needs. UsageError, which names them, for templates that need each other."""
    by_key = {node.key: node for node in nodes}
    try:
        return [by_key[key] for key in TopologicalSorter({node.key: node.needs for node in nodes}).static_order()]
    except CycleError as error:
        circle = " -> ".join(by_key[key].template.name for key in error.args[1])
        raise UsageError(f"these templates need each other: {circle}", hint="give one of them another source", code="plan.cycle") from error


def find_template(source: ImageSource, template: Template, load: Callable[[Path], Sequence[Template]]) -> Template | None:
    """The template that bakes `source` for `template`: the one that `source` names, else a template with the image's name in the same
    directory; None when there is none."""
    name = source.image.partition("@")[0]
    directory = template.path.parent
    candidates = [directory / source.template] if source.template else sorted(p for p in directory.glob("*.y*ml") if _mentions(p, name))
    for path in candidates:
        for found in load(path):
            if found.name == name and found.path != template.path:
                return found
    return None


def _mentions(path: Path, name: str) -> bool:
    """Whether a file may be the template `name`: a cheap test, so that unrelated files in the directory need not be valid."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(line.startswith("name:") and (name in line or "${{" in line) for line in lines)


def missing_image_hint(template: Template, reference: str, catalog_hint: str) -> str:
    """The hint for a missing image that no known template bakes. `catalog_hint`: the hint of the catalog's error."""
    name = reference.partition("@")[0]
    if ":" in name:
        return catalog_hint  # a digest: no template can promise it
    named = getattr(template.source, "template", None)
    searched = f"{named} bakes no {name}" if named else f"no template in the directory of {template.path.name} is called {name}"
    remedies = (
        f"name a template that bakes it, source: {{image: {{name: {reference}, template: path/to/{name}.yaml}}}}",
        f"or bake it first, bake build path/to/{name}.yaml",
    )
    return "\n    ".join((catalog_hint, searched, *remedies))
