"""Find the layer that a reference like `web@3` or `web@packages` names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baker.catalog.records import BuildRecord, StepRecord
from baker.core.errors import NotFoundError, UsageError
from baker.layers.store import Layer, LayerStore

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog


def find(catalog: Catalog, store: LayerStore, reference: str) -> tuple[Layer, BuildRecord]:
    """The layer after a step of the last build of a template, and that build.

    UsageError for a reference of another form. NotFoundError, with what there is instead, for an unknown template or step, and for a step
    without a layer.
    """
    name, sign, step_name = reference.rpartition("@")
    if not sign or not name or not step_name:
        hint = "write NAME@STEP: a template's name, and the number or the name of a step, as in web@3"
        raise UsageError(f"{reference!r} is not a reference to a layer", hint=hint, code="layer.reference")
    build = catalog.last_planned(name)
    if build is None:
        raise NotFoundError(f"no template called {name} was ever built", hint="`bake logs` lists the latest builds", code="build.not-found")
    step = next((record for record in build.steps if step_name in (str(record.index), record.name)), None)
    if step is None:
        known = ", ".join(f"{record.index} {record.name}" for record in build.steps)
        raise NotFoundError(f"{name} has no step {step_name!r}", hint=f"the steps are: {known or 'none'}", code="usage.unknown-step")
    layer = store.find(step.key) if step.key else None
    if layer is None:
        message = f"there is no layer of {name} after step {step.index} ({step.name})"
        raise NotFoundError(message, hint=_hint(build, store, step), code="layer.not-found")
    return layer, build


def _hint(build: BuildRecord, store: LayerStore, step: StepRecord) -> str:
    with_layer = ", ".join(str(record.index) for record in build.steps if record.key and store.find(record.key))
    command = f"bake build {build.template_path} --until {step.index} makes it"
    return f"there are layers after the steps {with_layer}; {command}" if with_layer else command
