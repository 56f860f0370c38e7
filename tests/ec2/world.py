"""What one emulator knows beside moto's backends: where files lie, how long things take, what is due, what a request is to suffer."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ACCOUNT = "123456789012"
OTHER_ACCOUNT = "136693071363"  # Debian's, whose images stand for "somebody else's"


@dataclass
class Settings:
    """`delay`: seconds that a change of state takes (instances, snapshots, images). `machines`: instances are QEMU machines."""

    directory: Path
    machines: bool = False
    delay: float = 0.05
    region: str = "eu-central-1"
    policy: dict[str, Any] | None = None


@dataclass
class World:
    """One per process. `lock` is held for every request but those for blocks: moto is not made for threads."""

    settings: Settings
    lock: threading.RLock = field(default_factory=threading.RLock)
    tokens: dict[tuple[str, ...], tuple[str, Any]] = field(default_factory=dict)
    _due: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _watched: list[tuple[Callable[[], bool], Callable[[], None]]] = field(default_factory=list)
    _count: Any = field(default_factory=itertools.count)
    _request: threading.local = field(default_factory=threading.local)

    def later(self, action: Callable[[], None], seconds: float | None = None) -> None:
        """Do `action` before the first request that comes after `seconds` (default: the delay, longer when the request is slowed)."""
        wait = self.delay if seconds is None else seconds
        heapq.heappush(self._due, (time.monotonic() + wait, next(self._count), action))

    def until(self, condition: Callable[[], bool], action: Callable[[], None]) -> None:
        """Do `action` before the first request that comes once `condition` holds."""
        self._watched.append((condition, action))

    def settle(self) -> None:
        """Do all that is due. Called with the lock held."""
        own, self.effects = self.effects, {}  # what is due was begun by other requests
        try:
            self._do_all_due()
        finally:
            self.effects = own

    def _do_all_due(self) -> None:
        ready = [watch for watch in self._watched if watch[0]()]
        self._watched = [watch for watch in self._watched if watch not in ready]
        for _, action in ready:
            action()
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()

    @property
    def delay(self) -> float:
        return self.settings.delay + float(self.effects.get("slow", 0))

    @property
    def effects(self) -> dict[str, float]:
        """What the request in hand brings upon what it makes: "snapshot-error", "image-failed", ... -> seconds."""
        found: dict[str, float] = getattr(self._request, "effects", {})
        return found

    @effects.setter
    def effects(self, value: dict[str, float]) -> None:
        self._request.effects = value

    def path(self, kind: str, name: str) -> Path:
        folder = self.settings.directory / kind
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def forget(self) -> None:
        """As it was at the start: nothing due, no tokens."""
        self._due.clear()
        self._watched.clear()
        self.tokens.clear()


_worlds: list[World] = []


def world() -> World:
    """The process's."""
    return _worlds[0]


def create(settings: Settings) -> World:
    _worlds[:] = [World(settings)]
    return _worlds[0]
