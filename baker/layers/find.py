"""The layer that a person means: `web@3`, `web@packages`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baker.catalog.records import BuildRecord, StepRecord
from baker.core.errors import NotFoundError, UsageError
from baker.layers.store import Layer, LayerStore

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog


def find(catalog: Catalog, store: LayerStore, reference: str) -> tuple[Layer, BuildRecord]:
    """The layer after a step of the last build of a template, and that build. NotFoundError says what there is instead."""
    name, sign, step = reference.rpartition("@")
    if not sign or not name or not step:
        raise UsageError(f"{reference!r} names no layer", hint="NAME@STEP: a template's name and the number or the name of a step, web@3")
    build = catalog.last_planned(name)
    if build is None:
        raise NotFoundError(f"no template called {name} was ever built", hint="`bake logs` lists the latest builds")
    wanted = next((record for record in build.steps if step in (str(record.index), record.name)), None)
    if wanted is None:
        there = ", ".join(f"{record.index} {record.name}" for record in build.steps)
        raise NotFoundError(f"{name} has no step {step!r}", hint=f"there are: {there or 'none'}")
    layer = store.find(wanted.key) if wanted.key else None
    if layer is None:
        raise NotFoundError(f"there is no layer of {name} after step {wanted.index} ({wanted.name})", hint=_hint(build, store, wanted))
    return layer, build


def _hint(build: BuildRecord, store: LayerStore, wanted: StepRecord) -> str:
    kept = ", ".join(str(record.index) for record in build.steps if record.key and store.find(record.key))
    ways = f"bake build {build.template_path} --until {wanted.index} makes it"
    return f"there are layers after the steps {kept}; {ways}" if kept else ways
