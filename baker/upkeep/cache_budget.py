"""Retention of layers and downloads: the least valuable are removed first, but never one that a build uses or that has children."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from baker.core.errors import BusyError, UsageError
from baker.core.units import parse_size
from baker.layers.store import Layer, LayerStore
from baker.proxy.store import Entry, Store

HALF_LIFE = 7 * 86400.0  # seconds without use after which an item is worth half
BUDGET_VARIABLE, DEFAULT_BUDGET = "BAKE_CACHE_SIZE", "20GiB"
RATE = 10e6  # bytes per second: the assumed speed of another download


@dataclass(frozen=True)
class Collected:
    """An item that was removed, or with a dry run would be, and the reason. `size` in bytes."""

    kind: Literal["layer", "download", "blob"]
    id: str
    name: str
    size: int
    reason: str


@dataclass(frozen=True)
class CacheItem:
    """An item that may be removed. `value` in seconds per byte; `remove` raises BusyError when a build uses the item."""

    collected: Collected
    value: float
    used: float  # seconds since the epoch
    broken: bool
    remove: Callable[[], object]


def default_budget(env: Mapping[str, str]) -> int:
    """The budget of the cache in bytes: BAKE_CACHE_SIZE, or 20 GiB. UsageError when it is not a size."""
    try:
        return parse_size(env.get(BUDGET_VARIABLE, DEFAULT_BUDGET))
    except ValueError as error:
        raise UsageError(f"{BUDGET_VARIABLE}: {error}", hint=f"for example: {BUDGET_VARIABLE}=20GiB", code="usage.bad-size") from error


def worth(seconds: float, size: int, used: float, now: float) -> float:
    """The value of an item in seconds per byte: it saves `seconds` when it is used, halved for every week without use."""
    return float(seconds * 0.5 ** (max(now - used, 0.0) / HALF_LIFE) / max(size, 1))


def _layer_item(store: LayerStore, layer: Layer, now: float) -> CacheItem:
    record, size, used = layer.record, layer.size, layer.used
    collected = Collected("layer", layer.id, f"{record.template}@{record.step} {record.name}", size, "")
    value = 0.0 if layer.broken else worth(record.work, size, used, now)
    return CacheItem(collected, value, used, bool(layer.broken), lambda: store.remove(layer))


def downloads(store: Store, now: float) -> list[CacheItem]:
    """The entries of the HTTP cache. Each saves its transfer."""

    def item(entry: Entry) -> CacheItem:
        collected = Collected("download", entry.digest, entry.url.partition("?")[0], entry.size, "")
        value = worth(entry.size / RATE, entry.size, entry.used_at, now)
        return CacheItem(collected, value, entry.used_at, False, lambda: store.remove(entry))

    return [item(entry) for entry in store.entries()]


def collect(
    layers: LayerStore,
    http: Store | None = None,
    *,
    now: float,
    budget: int | None = None,
    max_age: float | None = None,
    dry_run: bool = False,
) -> list[Collected]:
    """Remove layers and downloads that were not used for `max_age` seconds, then the least valuable until the rest takes at most `budget`
    bytes. Builds may run at the same time.

    A layer is removed only after the layers that are built on it, so it remains while one of them is more valuable.
    """
    known = {layer.id: layer for layer in layers.all()}
    others = dict(enumerate(downloads(http, now) if http else []))
    total = sum(layer.size for layer in known.values()) + sum(item.collected.size for item in others.values())
    gone: list[Collected] = []
    busy: set[str] = set()
    while True:
        leaves = [_layer_item(layers, layer, now) for layer in _leaves(known.values()) if layer.id not in busy]
        chosen = _next([*leaves, *others.values()], now, budget is not None and total > budget, max_age)
        if chosen is None:
            break
        item, reason = chosen
        removed = replace(item.collected, reason=reason)
        if not dry_run:
            try:
                item.remove()
            except BusyError:
                busy.add(removed.id)
                continue
        if removed.kind == "layer":
            del known[removed.id]
        else:
            others = {number: other for number, other in others.items() if other is not item}
        total -= removed.size
        gone.append(removed)
    if not dry_run:
        layers.clean()
        if http:
            http.clean()
    return gone


def _next(items: list[CacheItem], now: float, over_budget: bool, max_age: float | None) -> tuple[CacheItem, str] | None:
    for item in items:
        if item.broken:
            return item, "cannot be restored"
        if max_age is not None and now - item.used > max_age:
            return item, "not used for too long"
    if over_budget and items:
        return min(items, key=lambda item: item.value), "worth least"
    return None


def drop_based_on(store: LayerStore, missing: Collection[str]) -> list[Collected]:
    """Remove the layers whose source has a blob in `missing`, topmost first. Layers that a build uses are not removed."""
    gone: list[Collected] = []
    busy: set[str] = set()
    while True:
        layers = [layer for layer in store.all() if set(layer.record.blobs) & set(missing) and layer.id not in busy]
        leaves = _leaves(layers)
        if not leaves:
            return gone
        for layer in leaves:
            item = replace(_layer_item(store, layer, 0.0).collected, reason="its source was removed")
            try:
                store.remove(layer)
                gone.append(item)
            except BusyError:
                busy.add(layer.id)


def _leaves(layers: Iterable[Layer]) -> list[Layer]:
    known = list(layers)
    below = {layer.record.parent for layer in known}
    return [layer for layer in known if layer.id not in below]
