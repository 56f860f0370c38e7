"""Resources outside of this process, such as machines, volumes and AMIs.

Each is in the ledger before it is created, and struck out when it is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from baker.core.errors import BakeError
from baker.core.ledger import BuildLedger, Entry


@dataclass(frozen=True)
class _Held:
    entry: Entry
    delete: Callable[[], object]

    def fits(self, kind: str, details: Mapping[str, Any]) -> bool:
        found = self.entry.details
        return kind in ("", self.entry.kind) and all(found.get(name) == value for name, value in details.items())


class Resources:
    """The resources of one build. What could not be deleted stays in the ledger, for another attempt and for `bake sweep`.

    `release` and `keep` take a kind and details that choose some of the resources; without them all are meant.
    """

    def __init__(self, ledger: BuildLedger) -> None:
        self._ledger = ledger
        self._held: list[_Held] = []

    @property
    def run(self) -> str:
        """The id of the build, which the names and tags of its resources have."""
        return self._ledger.build_id

    def enter(self, kind: str, delete: Callable[[], object], **details: Any) -> Entry:
        """Put a resource into the ledger. Call it before creating the resource: `delete` accepts that it does not exist."""
        return self.adopt(self._ledger.enter(kind, **details), delete)

    def adopt(self, entry: Entry, delete: Callable[[], object]) -> Entry:
        """Hold a resource that is in the ledger already: a killed process of the same build left it."""
        self._held.append(_Held(entry, delete))
        return entry

    def create(self, kind: str, action: Callable[[], str], delete: Callable[[Mapping[str, Any]], object], **details: Any) -> str:
        """Run `action`, which creates a resource, and return what it returns: the resource's id.

        `delete` takes the details. They have an "id" as soon as that is known. Before, and for ever if the answer of `action` was lost,
        `delete` has to find the resource by its tags.
        """
        unknown = self.enter(kind, partial(delete, details), **details)
        made = action()
        known = {**details, "id": made}
        self.enter(kind, partial(delete, known), **known)
        self._strike([held for held in self._held if held.entry is unknown])
        return made

    def release(self, kind: str = "", **details: Any) -> None:
        """Delete resources, newest first. When all have been tried, the first error is raised, with the others as its notes."""
        failures = self._release(kind, details)
        if failures:
            _add_notes(failures[0], failures[1:])
            raise failures[0]

    def release_after(self, error: BaseException, kind: str = "", **details: Any) -> None:
        """The same because of `error`, which gets a note about each resource that could not be deleted."""
        _add_notes(error, self._release(kind, details))

    def keep(self, kind: str = "", **details: Any) -> None:
        """Strike resources from the ledger without deleting them: they are on record, or somebody else's."""
        self._strike(self._chosen(kind, details))

    def _release(self, kind: str, details: Mapping[str, Any]) -> list[Exception]:
        failures: list[Exception] = []
        for held in self._chosen(kind, details):
            try:
                held.delete()
            except Exception as error:
                failures.append(error)
            else:
                self._strike([held])
        return failures

    def _chosen(self, kind: str, details: Mapping[str, Any]) -> list[_Held]:
        return [held for held in reversed(self._held) if held.fits(kind, details)]

    def _strike(self, gone: list[_Held]) -> None:
        for held in gone:
            self._ledger.strike(held.entry)
            self._held.remove(held)


def _add_notes(error: BaseException, failures: list[Exception]) -> None:
    for failure in failures:
        words = failure.message if isinstance(failure, BakeError) else str(failure)
        error.add_note(f"clean-up: {words}; bake sweep tries again")


class Keepable(Protocol):
    """A machine that may be left running."""

    @property
    def kept(self) -> bool: ...


M = TypeVar("M", bound=Keepable)


@contextmanager
def launched(ledger: BuildLedger, start: Callable[[Resources], M]) -> Iterator[M]:
    """The machine that `start` makes. On leaving, its resources are released unless it is to be kept."""
    resources = Resources(ledger)
    machine: M | None = None
    try:
        machine = start(resources)
        yield machine
    except BaseException as error:
        if machine is None or not machine.kept:
            resources.release_after(error)
        raise
    if not machine.kept:
        resources.release()
