"""What a run has to bake, and in which order: what was asked for, and the missing images that it starts from."""

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
    """Where a run finds its templates, and the images that are there already; `baker.Baker` is one."""

    home: Home
    sink: Sink

    @property
    def catalog(self) -> Catalog: ...

    def load(self, path: Path, /) -> Sequence[Template]: ...

    def load_request(self, request: BuildRequest, /) -> Sequence[Template]: ...


def graph(baker: Templates, requests: Sequence[BuildRequest], *, fail_fast: bool) -> list[BuildNode]:
    """The nodes of a run: what was asked for and the missing images below it, those first.

    Where an image that a template starts from cannot be had, that is raised; without `fail_fast` it is that node's end.
    """
    asked = [(template, request) for request in requests for template in baker.load_request(request)]
    for template, request in asked:
        layer_options(template, request.options)  # a step that does not exist is reported before anything begins
    nodes: dict[str, BuildNode] = {}
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
            end = Ended(key, error.exit_code, error=str(error), code=error.code)
        if below is not None:
            pending.append(
                (below, BuildRequest(below.path, options=BuildOptions(uri=request.options.uri, accelerator=request.options.accelerator)))
            )
        home = {f.name: str(getattr(baker.home, f.name)) for f in fields(baker.home)}
        needs = frozenset({key_of(below)} if below is not None else ())
        nodes[key] = BuildNode(key, template, request.to_json() | {"select": template.name, "home": home}, needs, end)
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


@dataclass(frozen=True)
class Ended:
    """How one build of a run ended. `exit_code` 0 is success; `skipped` is one that was never begun."""

    key: str
    exit_code: int
    finished: BuildFinished | None = None
    error: str = ""
    code: str = ""  # the error's, see docs/errors.md
    skipped: bool = False


@dataclass(frozen=True)
class BuildNode:
    """One build of a run. `needs` are the keys of the builds whose images it starts from."""

    key: str
    template: Template
    request: Mapping[str, Any]  # what a worker needs to do the same: see worker.py
    needs: frozenset[str] = field(default_factory=frozenset)
    ended: Ended | None = None  # it failed before it could begin


def key_of(template: Template) -> str:
    return f"{template.path}#{template.name}"


def order(nodes: Sequence[BuildNode]) -> list[BuildNode]:
    """The nodes, each after what it needs. UsageError naming the circle when there is one."""
    by_key = {node.key: node for node in nodes}
    try:
        return [by_key[key] for key in TopologicalSorter({node.key: node.needs for node in nodes}).static_order()]
    except CycleError as error:
        circle = " -> ".join(by_key[key].template.name for key in error.args[1])
        raise UsageError(f"these templates need each other: {circle}", hint="one of them needs another source") from error


def find_template(source: ImageSource, template: Template, load: Callable[[Path], Sequence[Template]]) -> Template | None:
    """The template that bakes `source` for `template`: the one it names, else one beside it with that name; None without one."""
    name = source.image.partition("@")[0]
    directory = template.path.parent
    candidates = [directory / source.template] if source.template else sorted(p for p in directory.glob("*.y*ml") if _mentions(p, name))
    for path in candidates:
        for found in load(path):
            if found.name == name and found.path != template.path:
                return found
    return None


def _mentions(path: Path, name: str) -> bool:
    """Whether a file may be the template `name`: a cheap look, so that unrelated files beside it need not be valid."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(line.startswith("name:") and (name in line or "${{" in line) for line in lines)


def ways_out(template: Template, reference: str, there: str) -> str:
    """What to do when an image is missing and no template is known that bakes it. `there`: what the catalog has to say."""
    name = reference.partition("@")[0]
    if ":" in name:
        return there  # a digest: no template promises one
    named = getattr(template.source, "template", None)
    looked = f"{named} bakes no {name}" if named else f"no template beside {template.path.name} is called {name}"
    ways = (
        f"point to a template that bakes it, source: {{image: {{name: {reference}, template: path/to/{name}.yaml}}}}",
        f"or bake it first, bake build path/to/{name}.yaml",
    )
    return "\n    ".join((there, looked, *ways))
