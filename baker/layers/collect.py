"""Removing layers: what is worth least first, never what a build uses or another layer is on."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from baker.errors import BusyError
from baker.layers.store import Layer, LayerStore

HALF_LIFE = 7 * 86400.0  # seconds after which a layer that nobody used is worth half


@dataclass(frozen=True)
class Collected:
    """A layer that was removed (or would be), and why. `size` in bytes."""

    id: str
    template: str
    step: int
    name: str
    size: int
    reason: str


def value(layer: Layer, now: float) -> float:
    """Seconds that the layer is likely to save, per byte: what going on from it saves, halved for every week without use."""
    if layer.broken:
        return 0.0
    return float(layer.record.work * 0.5 ** (max(now - layer.used, 0.0) / HALF_LIFE) / max(layer.size, 1))


def collect(
    store: LayerStore, *, now: float, budget: int | None = None, max_age: float | None = None, dry_run: bool = False
) -> list[Collected]:
    """Remove layers until those left are not older than `max_age` seconds since their last use and take no more than `budget` bytes.

    Only layers that no other is on can go, so a layer stays while one above it is worth more. Safe beside running builds.
    """
    layers = {layer.id: layer for layer in store.all()}
    total = sum(layer.size for layer in layers.values())
    gone: list[Collected] = []
    busy: set[str] = set()
    while True:
        leaves = [layer for layer in _leaves(layers.values()) if layer.id not in busy]
        doomed = _next(leaves, now, budget is not None and total > budget, max_age)
        if doomed is None:
            break
        layer, reason = doomed
        if not dry_run:
            try:
                store.remove(layer)
            except BusyError:
                busy.add(layer.id)
                continue
        del layers[layer.id]
        total -= layer.size
        gone.append(_collected(layer, reason))
    if not dry_run:
        store.clean()
    return gone


def _next(leaves: list[Layer], now: float, over_budget: bool, max_age: float | None) -> tuple[Layer, str] | None:
    for layer in leaves:
        if layer.broken:
            return layer, "cannot be restored"
        if max_age is not None and now - layer.used > max_age:
            return layer, "not used for too long"
    if over_budget and leaves:
        return min(leaves, key=lambda layer: value(layer, now)), "worth least"
    return None


def drop_based_on(store: LayerStore, missing: Collection[str]) -> list[Collected]:
    """Remove the layers whose source has a blob in `missing`, those on top first. What a build uses now stays."""
    gone: list[Collected] = []
    busy: set[str] = set()
    while True:
        layers = [layer for layer in store.all() if set(layer.record.blobs) & set(missing) and layer.id not in busy]
        leaves = _leaves(layers)
        if not leaves:
            return gone
        for layer in leaves:
            try:
                size = layer.size
                store.remove(layer)
                gone.append(_collected(layer, "its source was removed", size))
            except BusyError:
                busy.add(layer.id)


def _leaves(layers: Iterable[Layer]) -> list[Layer]:
    known = list(layers)
    below = {layer.record.parent for layer in known}
    return [layer for layer in known if layer.id not in below]


def _collected(layer: Layer, reason: str, size: int | None = None) -> Collected:
    record = layer.record
    return Collected(layer.id, record.template, record.step, record.name, layer.size if size is None else size, reason)
