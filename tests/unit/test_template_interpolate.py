"""Expressions: what they become, and where they are when they are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from baker.template.interpolate import Scope, interpolate, named
from baker.template.yaml_document import Document, Problems, parse

VALUES = {"text": "Hello", "number": 3, "ratio": 1.5, "yes": True, "list": ["a", 1], "map": {"k": {"deep": "d"}}, "nothing": None}
SCOPE = Scope({"var": named(VALUES, "variable")}, sensitive=frozenset({"var.text"}))


def become(yaml: str, *, public: bool = False) -> tuple[Any, list[str]]:
    """The value of the key `x` of a document, and "line:column" of each problem."""
    problems = Problems()
    root = parse(Document(Path("t.yaml"), "t.yaml", yaml), problems)
    assert root is not None
    value = interpolate(root, SCOPE, problems, public=public).value["x"].data()
    return value, [f"{problem.line}:{problem.column}" for problem in problems.list()]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x: ${{ var.text }}", "Hello"),
        ("x: ${{var.text}}", "Hello"),
        ('x: "${{ var.number }}"', 3),
        ("x: n=${{ var.number }}", "n=3"),
        ("x: ${{ var.ratio }}${{ var.yes }}${{ var.nothing }}", "1.5true"),
        ("x: ${{ var.yes }}", True),
        ("x: ${{ var.list }}", ["a", 1]),
        ("x: ${{ var.map.k }}", {"deep": "d"}),
        ("x: ${{ var.map.k.deep }}!", "d!"),
        ("x: ${{ var.nothing }}", None),
        ("x: $${{ var.text }}", "${{ var.text }}"),
        ("x: $HOME ${HOME} $$ {{ jinja }}", "$HOME ${HOME} $$ {{ jinja }}"),
        ("x: [a, '${{ var.text }}', {k: '${{ var.number }}'}]", ["a", "Hello", {"k": 3}]),
        ("x: >\n  folded ${{ var.text }}\n  text\n", "folded Hello text\n"),
    ],
)
def test_values(text: str, value: Any) -> None:
    found, places = become(text)
    assert places == []
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("x: ${{ var.no }}", ["1:4"]),
        ("x: 'é ${{ var.no }}'", ["1:7"]),
        ('x: "a ${{ var.text }} ${{ var.no }} ${{ var.nope }}"', ["1:23", "1:37"]),
        ("x: |\n  one\n  ${{ var.no }}\n    two ${{ var.no }}\n", ["3:3", "4:9"]),
        ("x: >\n  one\n  two ${{ var.no }}\n", ["3:7"]),
        ("x: [a,\n    'b ${{ var.no }}']", ["2:8"]),
        ("x: $${{ var.no }} ${{ var.no }}", ["1:19"]),
        ("x: ${{ }}", ["1:4"]),
        ("x: ${{ var }}", ["1:4"]),
        ("x: a ${{ var.text", ["1:6"]),
        ("x: ${{ var.map.k.deep.deeper }}", ["1:4"]),
        ("x: ${{ __import__('os').system('true') }}", ["1:4"]),
        ("x: ${{ var.text | upper }}", ["1:4"]),
        ("x: a ${{ var.map }}", ["1:6"]),
    ],
)
def test_places(text: str, places: list[str]) -> None:
    assert become(text)[1] == places


def test_what_is_recorded_holds_no_sensitive_name() -> None:
    assert become("x: ${{ var.text }}", public=True)[1] == ["1:4"]
    assert become("x: ${{ var.number }}", public=True)[1] == []
