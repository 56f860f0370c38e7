"""Error codes: each is documented, and each that is documented exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from baker.core.errors import BuildError, LockError, NotFoundError, Problem, TemplateError, error_to_json

ROOT = Path(__file__).resolve().parents[2]
FORM = re.compile(r"[a-z][a-z0-9]*(\.[a-z0-9*]+(-[a-z0-9*]+)*)?")
PLAIN = {"error", "internal", "interrupted"}  # codes without an area


def used() -> Iterator[tuple[str, str]]:
    """(code, place) of every code in the package; a part that is computed is `*`."""
    for path in sorted((ROOT / "baker").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            values: list[ast.expr | None] = []
            match node:
                case ast.Call():
                    values = [each.value for each in node.keywords if each.arg == "code"]
                case ast.Assign(targets=[ast.Name(id="default_code" | "code")]):
                    values = [node.value]
                case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=found)):
                    values = [each for target, each in zip(targets, found, strict=True) if ast.unparse(target) == "code"]
                case ast.AnnAssign(target=ast.Name(id="default_code" | "code")):
                    values = [node.value]
                case ast.FunctionDef():
                    pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
                    values = [default for argument, default in pairs if argument.arg == "code"]
            for value in values:
                for code in _texts(value):
                    yield code, f"{path.relative_to(ROOT)}:{getattr(value, 'lineno', 0)}"


def _texts(value: ast.expr | None) -> Iterator[str]:
    if isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value:
        yield value.value
    elif isinstance(value, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in value.values)
    elif isinstance(value, ast.IfExp):
        yield from _texts(value.body)
        yield from _texts(value.orelse)
    elif isinstance(value, ast.BoolOp):
        for each in value.values:
            yield from _texts(each)


def documented() -> list[str]:
    """The codes of the tables in docs/errors.md, in order."""
    return re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)


def test_every_code_has_the_form_area_and_what() -> None:
    assert [(code, place) for code, place in used() if not FORM.fullmatch(code) or ("." not in code and code not in PLAIN)] == []


def test_every_code_is_documented_and_every_documented_one_exists() -> None:
    codes, known = {code for code, _ in used()}, documented()
    assert sorted(code for code in codes if not any(fnmatchcase(each, code) for each in known)) == []
    assert sorted(each for each in known if not any(fnmatchcase(each, code) for code in codes) and each not in PLAIN) == []
    assert len(known) == len(set(known))


def test_what_programs_get_of_an_error() -> None:
    error = BuildError("it broke", hint="mend it", code="step.failed")
    assert error_to_json(error) == {"code": "step.failed", "message": "it broke", "hint": "mend it", "exit_code": 3, "problems": []}
    assert error_to_json(NotFoundError("no image"))["code"] == "catalog.not-found"
    problem = Problem("web.yaml", 3, 5, "unknown key", code="template.unknown-key")
    for kind in (TemplateError, LockError):
        (found,) = error_to_json(kind([problem]))["problems"]
        assert (found["file"], found["line"], found["column"], found["code"]) == ("web.yaml", 3, 5, "template.unknown-key")
