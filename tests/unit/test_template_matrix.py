"""Matrices: which images a template makes and what they are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from baker.template.matrix import combinations, names, selected
from baker.template.yaml_document import Document, Problems, parse


def rows(yaml: str) -> list[dict[str, object]]:
    problems = Problems()
    found = combinations(parse(Document(Path("m.yaml"), "m.yaml", yaml), problems), problems)
    assert problems.list() == []
    return found


def test_every_combination_in_written_order() -> None:
    assert rows("a: [1, 2]\nb: [x, y]") == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]


def test_exclude_by_some_values_and_include_whole_rows() -> None:
    assert rows("a: [1, 2]\nb: [x, y]\nexclude: [{a: 2}, {a: 1, b: y}]\ninclude: [{b: z, a: 9}, {a: 1, b: x}]") == [
        {"a": 1, "b": "x"},
        {"a": 9, "b": "z"},
    ]


def test_no_matrix_is_one_image() -> None:
    assert combinations(None, Problems()) == [{}]


def test_names() -> None:
    two = [{"a": "Big One", "b": True}, {"a": "2", "b": False}]
    assert names(["web", "web"], two) == ["web-big-one-true", "web-2-false"]
    assert names(["web-1", "web-2"], two) == ["web-1", "web-2"]


@pytest.mark.parametrize(
    ("only", "except_", "chosen"),
    [
        ((), (), True),
        (("web-*",), (), True),
        (("db",), (), False),
        ((), ("*-1",), False),
        (("a=X",), (), True),
        (("a=y", "web-1"), (), True),
        (("b=1",), (), False),
        (("a=x",), ("web-1",), False),
    ],
)
def test_selection(only: tuple[str, ...], except_: tuple[str, ...], chosen: bool) -> None:
    assert selected("web-1", {"a": "x"}, only, except_) is chosen
