"""Removing layers and downloads: what is worth least first, never what a build uses or another layer is on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from baker.core.errors import BusyError, UsageError
from baker.core.units import parse_size
from baker.layers.store import Layer, LayerStore
from baker.proxy.store import Entry, Store

HALF_LIFE = 7 * 86400.0  # seconds after which a layer that nobody used is worth half


BUDGET_VARIABLE, DEFAULT_BUDGET = "BAKE_CACHE_SIZE", "20GiB"
RATE = 10e6  # bytes per second at which a download is taken to come in again


@dataclass(frozen=True)
class Collected:
    """A thing that was removed (or would be), and why. `size` in bytes."""

    kind: Literal["layer", "download", "blob"]
    id: str
    name: str
    size: int
    reason: str


@dataclass(frozen=True)
class Thing:
    """Something of the cache that may go. `value` is in seconds per byte; `remove` raises BusyError when a build uses it."""

    collected: Collected
    value: float
    used: float  # seconds since the epoch
    broken: bool
    remove: Callable[[], object]


def default_budget(env: Mapping[str, str]) -> int:
    """What the cache may take: bytes, by BAKE_CACHE_SIZE, else 20 GiB. UsageError when that is no size."""
    try:
        return parse_size(env.get(BUDGET_VARIABLE, DEFAULT_BUDGET))
    except ValueError as error:
        raise UsageError(f"{BUDGET_VARIABLE}: {error}", hint=f"for example: {BUDGET_VARIABLE}=20GiB") from error


def worth(seconds: float, size: int, used: float, now: float) -> float:
    """Seconds that a thing is likely to save, per byte: what it saves when it is used, halved for every week without use."""
    return float(seconds * 0.5 ** (max(now - used, 0.0) / HALF_LIFE) / max(size, 1))


def layer_thing(store: LayerStore, layer: Layer, now: float) -> Thing:
    record, size, used = layer.record, layer.size, layer.used
    collected = Collected("layer", layer.id, f"{record.template}@{record.step} {record.name}", size, "")
    value = 0.0 if layer.broken else worth(record.work, size, used, now)
    return Thing(collected, value, used, bool(layer.broken), lambda: store.remove(layer))


def downloads(store: Store, now: float) -> list[Thing]:
    """What the HTTP cache keeps: each saves its transfer."""

    def thing(entry: Entry) -> Thing:
        collected = Collected("download", entry.digest, entry.url.partition("?")[0], entry.size, "")
        value = worth(entry.size / RATE, entry.size, entry.used_at, now)
        return Thing(collected, value, entry.used_at, False, lambda: store.remove(entry))

    return [thing(entry) for entry in store.entries()]


def collect(
    layers: LayerStore,
    http: Store | None = None,
    *,
    now: float,
    budget: int | None = None,
    max_age: float | None = None,
    dry_run: bool = False,
) -> list[Collected]:
    """Remove layers and downloads until those left are not older than `max_age` seconds since their last use and take no more than
    `budget` bytes, what is worth least first.

    Only layers that no other is on can go, so a layer stays while one above it is worth more. Safe beside running builds.
    """
    known = {layer.id: layer for layer in layers.all()}
    others = dict(enumerate(downloads(http, now) if http else []))
    total = sum(layer.size for layer in known.values()) + sum(thing.collected.size for thing in others.values())
    gone: list[Collected] = []
    busy: set[str] = set()
    while True:
        leaves = [layer_thing(layers, layer, now) for layer in _leaves(known.values()) if layer.id not in busy]
        doomed = _next([*leaves, *others.values()], now, budget is not None and total > budget, max_age)
        if doomed is None:
            break
        thing, reason = doomed
        item = replace(thing.collected, reason=reason)
        if not dry_run:
            try:
                thing.remove()
            except BusyError:
                busy.add(item.id)
                continue
        if item.kind == "layer":
            del known[item.id]
        else:
            others = {number: other for number, other in others.items() if other is not thing}
        total -= item.size
        gone.append(item)
    if not dry_run:
        layers.clean()
        if http:
            http.clean()
    return gone


def _next(things: list[Thing], now: float, over_budget: bool, max_age: float | None) -> tuple[Thing, str] | None:
    for thing in things:
        if thing.broken:
            return thing, "cannot be restored"
        if max_age is not None and now - thing.used > max_age:
            return thing, "not used for too long"
    if over_budget and things:
        return min(things, key=lambda thing: thing.value), "worth least"
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
            item = replace(layer_thing(store, layer, 0.0).collected, reason="its source was removed")
            try:
                store.remove(layer)
                gone.append(item)
            except BusyError:
                busy.add(layer.id)


def _leaves(layers: Iterable[Layer]) -> list[Layer]:
    known = list(layers)
    below = {layer.record.parent for layer in known}
    return [layer for layer in known if layer.id not in below]
