"""What one machine holds outside this process: in the ledger before it is made, struck out when it is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from baker.core.ledger import BuildLedger, Entry


class Holdings:
    """Things to give back, newest first. A thing that cannot be given back stays in the ledger for `bake sweep`."""

    def __init__(self, ledger: BuildLedger) -> None:
        self._ledger = ledger
        self._held: list[tuple[Entry, Callable[[], None]]] = []

    def enter(self, kind: str, give_back: Callable[[], None], **details: Any) -> None:
        """Call it before making the thing: `give_back` must not mind that it does not exist yet, or no more."""
        self._held.append((self._ledger.enter(kind, **details), give_back))

    def release(self) -> list[Exception]:
        """Give everything back; the errors of what could not be."""
        errors: list[Exception] = []
        while self._held:
            entry, give_back = self._held.pop()
            try:
                give_back()
            except Exception as error:
                errors.append(error)
            else:
                self._ledger.strike(entry)
        return errors

    def keep(self) -> None:
        """Give nothing back: what was held is somebody else's now."""
        while self._held:
            self._ledger.strike(self._held.pop()[0])


class Keepable(Protocol):
    """A machine that may be left running."""

    @property
    def kept(self) -> bool: ...


M = TypeVar("M", bound=Keepable)


@contextmanager
def held(ledger: BuildLedger, start: Callable[[Holdings], M]) -> Iterator[M]:
    """What `start` makes. On leaving everything is given back unless it is to be kept; what could not be stays in the ledger and is told
    as a note of the error that matters, or as the error when there is no other."""
    holdings = Holdings(ledger)
    machine: M | None = None
    try:
        machine = start(holdings)
        yield machine
    except BaseException as error:
        if machine is None or not machine.kept:
            for failure in holdings.release():
                error.add_note(f"clean-up: {failure}")
        raise
    if not machine.kept:
        failures = holdings.release()
        for failure in failures[1:]:
            failures[0].add_note(f"clean-up: {failure}")
        if failures:
            raise failures[0]
