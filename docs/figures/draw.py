"""The two diagrams of docs/architecture.md, drawn from the code: `python -m docs.figures.draw`.

floors.svg: the folders of baker/ on the floors that pyproject.toml declares, and which folder imports which.
way.svg: what baker/build/recipe.py calls, in its order, with the stages that each call reports and the folders that it uses.

tests/unit/test_docs.py draws both again and fails when the committed files differ.
"""

from __future__ import annotations

import ast
import textwrap
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from docs.figures.calls import PACKAGE, ROOT, Code, Scope, calls, dotted, imports
from docs.figures.svg import arrow, page, rectangle, text

HERE = Path(__file__).resolve().parent

# -- floors -------------------------------------------------------------------------------------------------------------------

CELL, LABEL, TOP, MARGIN = 25, 190, 100, 16


@dataclass(frozen=True)
class Floors:
    """The folders by floor, highest first, and the imports between folders. `upward`: imports that the contract excuses."""

    rows: tuple[tuple[str, ...], ...]
    imports: frozenset[tuple[str, str]]
    upward: frozenset[tuple[str, str]]


def floors() -> Floors:
    """What pyproject.toml declares and what the modules import, imports inside functions and for types included."""
    import grimp

    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    declared = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    rows = tuple(tuple(part.strip() for part in layer.split("|")) for layer in declared)
    rank = {folder: number for number, row in enumerate(rows) for folder in row}
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    pairs = {
        (_folder(module), _folder(other))
        for module in graph.modules
        for other in graph.find_modules_directly_imported_by(module)
        if _folder(module) != _folder(other)
    }
    pairs = {(one, other) for one, other in pairs if one in rank and other in rank}
    wrong = {(one, other) for one, other in pairs if rank[one] >= rank[other]}
    return Floors(rows, frozenset(pairs - wrong), frozenset(wrong))


def _folder(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def draw_floors(found: Floors) -> str:
    """A row and a column for each folder; a mark where the folder of the row imports that of the column."""
    folders = [folder for row in found.rows for folder in row]
    place = {folder: number for number, folder in enumerate(folders)}
    left, width = MARGIN + LABEL, MARGIN * 2 + LABEL + CELL * len(folders)
    bottom = TOP + CELL * len(folders)
    body = []
    for number, row in enumerate(found.rows):
        y = TOP + CELL * place[row[0]]
        if number % 2 == 0:
            body.append(rectangle(MARGIN, y, width - 2 * MARGIN, CELL * len(row), "band"))
            body.append(rectangle(left + CELL * place[row[0]], TOP, CELL * len(row), bottom - TOP, "band"))
        body.append(text(MARGIN + 8, y + 17, str(len(found.rows) - number), kind="soft", size=12))
    for folder, number in place.items():
        middle = left + CELL * number + CELL / 2
        body.append(text(MARGIN + 44, TOP + CELL * number + 17, folder, kind="bold"))
        body.append(text(middle + 4, TOP - 8, folder, size=12, turn=-60))
        body.append(rectangle(left + CELL * number + 9, TOP + CELL * number + 9, 7, 7, "line"))
    for pairs, kind in ((found.imports, "mark"), (found.upward, "bad")):
        for one, other in sorted(pairs, key=lambda pair: (place[pair[0]], place[pair[1]])):
            at = f'cx="{left + CELL * place[other] + CELL / 2:g}" cy="{TOP + CELL * place[one] + CELL / 2:g}"'
            body.append(f'<circle {at} r="5" class="{kind}"><title>{one} imports {other}</title></circle>')
    said = f"{len(folders)} folders on {len(found.rows)} floors. A dot: the folder of the row imports the folder of the column."
    body.append(text(MARGIN + 8, bottom + 26, said, kind="soft", size=12))
    if found.upward:
        body.append(
            text(MARGIN + 8, bottom + 44, "Red: imports upward or beside, which the contract excuses for now.", kind="soft", size=12)
        )
    return page(width, bottom + (56 if found.upward else 40), "The floors of baker/ and who imports whom", body)


# -- the way of a template ------------------------------------------------------------------------------------------------------

RECIPE = "build/recipe.py"
FIRST = (("load", "template/load.py", "load"),)
LAST = (("bake publish", "publish/service.py", ""), ("bake release", "release/releases.py", ""))


@dataclass(frozen=True)
class Row:
    """One call of the recipe. `heading` says where the call is when that is not the main line: an `if`, or make()."""

    call: str
    module: str
    about: str
    heading: str = ""
    stages: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()


def way() -> list[Row]:
    """The recipe's calls, those of make() in the place where bake() calls it."""
    code, path = Code(), ROOT / PACKAGE / RECIPE
    tree = ast.parse(path.read_text())
    scope, functions = (
        Scope(dotted(RECIPE), imports(tree), {}),
        {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)},
    )
    rows = [Row(call, module, _about(module, name)) for call, module, name in FIRST]
    rows += _rows(code, functions["bake"], scope, functions)
    return rows + [Row(call, module, _about(module, name), "later, by commands of their own") for call, module, name in LAST]


def _rows(code: Code, function: ast.FunctionDef, scope: Scope, here: Mapping[str, ast.FunctionDef], inside: str = "") -> Iterator[Row]:
    """The calls of a function of the recipe that report a stage or use another folder; the others are about the log."""
    for call, condition in _conditional(function.body, ""):
        if isinstance(call.func, ast.Name) and call.func.id in here:
            yield from _rows(code, here[call.func.id], scope, here, f"{call.func.id}()")
        elif found := code.find(call.func, scope):
            reached = code.reached(found)
            if reached.stages or reached.uses:
                heading = " ".join(part for part in (inside, condition) if part)
                about, uses = _first_line(found.node), tuple(sorted(reached.uses))
                yield Row(ast.unparse(call.func), found.module, about, heading, tuple(reached.stages), uses)


def _conditional(body: Sequence[ast.stmt], condition: str) -> Iterator[tuple[ast.Call, str]]:
    """The calls of statements, in order, each with the `if` that it stands in."""
    for statement in body:
        if isinstance(statement, ast.If):
            said = f"if {ast.unparse(statement.test)}"
            yield from _conditional(statement.body, said)
            yield from _conditional(statement.orelse, "else")
        elif isinstance(statement, (ast.With, ast.Try)):
            for item in statement.items if isinstance(statement, ast.With) else ():
                yield from ((call, condition) for call in calls(item.context_expr))
            yield from _conditional(statement.body, condition)
        else:
            yield from ((call, condition) for call in calls(statement))


def _about(module: str, name: str) -> str:
    """The first line of the docstring of a function, or of its module. It has to be there: this is what keeps the names here true."""
    tree = ast.parse((ROOT / PACKAGE / module).read_text())
    if not name:
        return _first_line(tree)
    return _first_line(next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name))


def _first_line(node: ast.Module | ast.FunctionDef) -> str:
    """The first sentence of a docstring."""
    paragraph = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
    sentence, dot, rest = paragraph.partition(". ")
    return sentence.removesuffix(".") if dot or rest else paragraph.removesuffix(".")


STEP, WIDE, USES = 16, 1000, 660
MANY = 5  # so many modules are named by their folders only


def draw_way(rows: Sequence[Row]) -> str:
    """A box for each call, from top to bottom; right of it the stages that the build reports meanwhile and the modules it uses."""
    body = [
        text(28, 30, "call, and the module that has it", kind="soft", size=12),
        text(USES, 30, "stages that it reports; other folders that it uses", kind="soft", size=12),
    ]
    y, before = 44, None
    for row in rows:
        x = 52 if row.heading else 24
        about = textwrap.wrap(row.about, 84)[:2]
        uses = textwrap.wrap(", ".join(row.uses if len(row.uses) < MANY else sorted({use.split("/")[0] for use in row.uses})), 48)
        height = 26 + STEP * max(len(about), len(uses) + bool(row.stages) - 1)
        if before and row.heading == before:
            body.append(arrow(x + 14, y - 14, x + 14, y))
        elif row.heading:
            body.append(text(x, y + 12, row.heading, kind="soft mono", size=12))
            y += 20
        elif before is not None:
            body.append(arrow(38, y - 14, 38, y))
        body.append(rectangle(x, y, USES - 20 - x, height, "box", 5))
        body.append(text(x + 10, y + 18, row.call, kind="bold", size=13))
        body.append(text(USES - 30, y + 18, row.module, kind="soft mono", size=11, anchor="end"))
        body += [text(x + 10, y + 35 + STEP * number, line, size=12, kind="soft") for number, line in enumerate(about)]
        beside = [(" → ".join(row.stages), "on")] if row.stages else []
        beside += [(line, "soft") for line in uses]
        body += [text(USES, y + 18 + STEP * number, line, size=12, kind=kind) for number, (line, kind) in enumerate(beside)]
        before = row.heading
        y += height + 14
    return page(WIDE, y + 6, "The way of a template through baker/build/recipe.py", body)


def figures() -> dict[str, str]:
    """Each figure's file name and content."""
    return {"floors.svg": draw_floors(floors()), "way.svg": draw_way(way())}


if __name__ == "__main__":
    for name, content in figures().items():
        (HERE / name).write_text(content)
