"""The fakes of tests/support are called as what they stand for is called."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from baker.api import Baker
from baker.build.services import Connect
from baker.build.verify import verify
from baker.catalog.catalog import Catalog
from baker.machines.base import Builder, Machine, SupportsPause, SupportsSnapshot
from baker.machines.ssh.communicator import Communicator
from baker.release.targets.base import Factory, ReleaseTarget
from tests.support import cloud, fake_app, fake_builder, fake_target, fakes, sources
from tests.support.signatures import mismatches, shape

SUPPORT = Path(__file__).resolve().parents[1] / "support"
WHOLE = [
    (fake_builder.FakeMachine, Machine),
    (fake_builder.FakeBuilder, Builder),
    (fake_builder.FakeBuilder, SupportsSnapshot),
    (fake_builder.FakeBuilder, SupportsPause),
    (fake_builder.FakeGuests, Connect),
    (cloud.Guests, Connect),
    (fakes.FakeCommunicator, Communicator),
    (fake_target.FakeTarget, ReleaseTarget),
]
PARTS = [(fake_app.FakeMachine, Machine), (sources.EmptyCatalog, Catalog)]
NO_SEAM = {"FakeClock"}  # Clock takes its methods as values, whose types mypy checks


def subclasses() -> Iterator[tuple[type, type]]:
    """Each class of tests/support that is derived from one of bake's, with that one."""
    for path in sorted(SUPPORT.glob("*.py")):
        classes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
        if any(node.bases for node in classes):
            module = importlib.import_module(f"tests.support.{path.stem}")
            for node in classes:
                found = getattr(module, node.name)
                yield from ((found, base) for base in found.__bases__ if base.__module__.startswith("baker."))


@pytest.mark.parametrize(("fake", "real"), WHOLE, ids=lambda each: each.__name__)
def test_a_fake_of_a_protocol_has_all_of_it(fake: type, real: type) -> None:
    assert list(mismatches(fake, real, whole=True)) == []


@pytest.mark.parametrize(("fake", "real"), [*PARTS, *subclasses()], ids=lambda each: each.__name__)
def test_a_fake_overrides_only_what_there_is(fake: type, real: type) -> None:
    assert list(mismatches(fake, real, whole=False)) == []


def test_the_fake_baker_is_among_them() -> None:
    assert (fake_app.FakeBaker, Baker) in list(subclasses())


def test_every_fake_is_compared() -> None:
    compared = {fake.__name__ for fake, _ in (*WHOLE, *PARTS, *subclasses())} | NO_SEAM
    named = {
        node.name
        for path in SUPPORT.glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and (node.name.startswith("Fake") or "Implements " in (ast.get_docstring(node) or ""))
    }
    assert named <= compared


def test_a_fake_target_is_made_as_a_target_is() -> None:
    made, wanted = shape(fake_target.FakeTarget), shape(Factory.__call__)
    assert made[: len(wanted)] == wanted
    assert all(default != "none" for _, _, default in made[len(wanted) :])


def test_fake_tests_are_run_as_tests_are() -> None:
    assert shape(cloud.Yard.test) == shape(verify)


# --- the comparison itself ---------------------------------------------------------------------------------------------


class Real(Protocol):
    name: str

    def call(self, one: str, *, two: int = 1) -> None: ...

    @contextmanager
    def within(self) -> Iterator[None]: ...

    @property
    def state(self) -> str: ...


class Same:
    name, state = "", ""

    def call(self, one: str, *, two: int = 1) -> None: ...

    @contextmanager
    def within(self) -> Iterator[None]:
        yield

    def more(self) -> None: ...


def test_the_same_members_fit() -> None:
    assert list(mismatches(Same, Real, whole=True)) == []
    assert list(mismatches(Same, Real, whole=False)) == ["Same.more stands for nothing in Real"]


@pytest.mark.parametrize(
    "call",
    [
        lambda self, one: None,
        lambda self, one, *, two=2: None,
        lambda self, one, two=1: None,
        lambda self, other, *, two=1: None,
        lambda self, one, **options: None,
        lambda self, one, *, two=1, three=3: None,
        lambda self, one, *, two: None,
        "no method",
    ],
    ids=["less", "default", "kind", "name", "anything", "more", "no default", "value"],
)
def test_another_signature_does_not_fit(call: object) -> None:
    fake = type("Fake", (Same,), {"call": call})
    (found,) = mismatches(fake, Real, whole=True)
    assert found.startswith("Fake.call ")
    (found,) = (each for each in mismatches(fake, Real, whole=False) if "call" in each)


def test_a_missing_member_does_not_fit() -> None:
    assert inspect.isclass(Same)
    empty = type("Empty", (), {"call": Same.call})
    assert list(mismatches(empty, Real, whole=True)) == ["Empty has no name", "Empty has no within", "Empty has no state"]
