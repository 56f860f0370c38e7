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
from dataclasses import dataclass, field
from pathlib import Path

from docs.figures.svg import arrow, page, rectangle, text

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PACKAGE = "baker"

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
            x, y = left + CELL * place[other] + CELL / 2, TOP + CELL * place[one] + CELL / 2
            body.append(f'<circle cx="{x:g}" cy="{y:g}" r="5" class="{kind}"><title>{one} imports {other}</title></circle>')
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
PLUMBING = {"build", "core", "catalog.records", "render"}  # what every stage uses says nothing about it


@dataclass(frozen=True)
class Function:
    """A function or method of baker/build."""

    module: str  # build/stages.py
    owner: str  # the class of a method, else ""
    node: ast.FunctionDef
    names: Mapping[str, str]  # what the module's imports mean: stages -> build.stages, seal -> build.seal.seal


@dataclass
class Reached:
    """What a call comes to: the stages that it reports, in order, and what it uses outside of baker/build."""

    stages: list[str] = field(default_factory=list)
    uses: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Row:
    """One call of the recipe. `heading` says where the call is when that is not the main line: an `if`, or make()."""

    call: str
    module: str
    about: str
    heading: str = ""
    stages: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()


class Code:
    """The functions of baker/build, from their syntax alone: nothing is imported or run."""

    def __init__(self) -> None:
        self.functions: dict[tuple[str, str], Function] = {}  # by module or class, and name
        for path in sorted((ROOT / PACKAGE / "build").glob("*.py")):
            tree, module = ast.parse(path.read_text()), f"build/{path.name}"
            for top in tree.body:
                for node in top.body if isinstance(top, ast.ClassDef) else (top,):
                    if isinstance(node, ast.FunctionDef):
                        owner = top.name if isinstance(top, ast.ClassDef) else ""
                        self.functions[owner or _dotted(module), node.name] = Function(module, owner, node, _imports(tree))

    def find(self, called: ast.expr, names: Mapping[str, str], module: str, types: Mapping[str, str]) -> Function | None:
        """The function of baker/build that an expression means, as far as imports and classes say it."""
        if isinstance(called, ast.Name):
            home, _, name = names.get(called.id, f"{module}.{called.id}").rpartition(".")
            return self.functions.get((home, name)) or self.functions.get((name, "__init__"))
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Call):
            return self.functions.get((ast.unparse(called.value.func), called.attr))
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
            receiver = called.value.id
            return self.functions.get((types.get(receiver) or names.get(receiver, ""), called.attr))
        return None

    def follow(self, function: Function, reached: Reached, seen: set[int]) -> None:
        """Everything that a function calls, depth first, in the order of the text."""
        if id(function.node) in seen:
            return
        seen.add(id(function.node))
        names, module, types = {**function.names, **_imports(function.node)}, _dotted(function.module), self._types(function)
        for call in _calls(function.node):
            if isinstance(call.func, ast.Attribute) and call.func.attr == "stage" and isinstance(call.args[0], ast.Constant):
                stage = str(call.args[0].value)
                reached.stages = [*(one for one in reached.stages if one != stage), stage]
            for expression in (call.func, *call.args):  # pool.submit(inspect, ...) calls inspect
                reached.uses |= _outside(expression, names)
                if below := self.find(expression, names, module, types):
                    self.follow(below, reached, seen)

    def _types(self, function: Function) -> dict[str, str]:
        """The classes of local names: of `self`, of annotated parameters, and of what a call of a class is bound to."""
        classes = {owner for owner, _ in self.functions if owner and "." not in owner}
        found = {"self": function.owner} if function.owner else {}
        for argument in function.node.args.args:
            said = ast.unparse(argument.annotation).split(" | ") if argument.annotation else []
            for one in classes.intersection(said):
                found[argument.arg] = one
        for node in ast.walk(function.node):
            bound = ()
            if isinstance(node, ast.withitem):
                bound = ((node.optional_vars, node.context_expr),)
            elif isinstance(node, ast.Assign):
                bound = tuple((target, node.value) for target in node.targets)
            for target, value in bound:
                if isinstance(target, ast.Name) and isinstance(value, ast.Call) and ast.unparse(value.func) in classes:
                    found[target.id] = ast.unparse(value.func)
        return found


def _dotted(module: str) -> str:
    return module.removesuffix(".py").replace("/", ".")


def _imports(tree: ast.AST) -> dict[str, str]:
    """Local name -> dotted name below baker, of the import statements directly in a module or function."""
    found = {}
    for node in ast.walk(tree) if isinstance(tree, ast.FunctionDef) else ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
            base = node.module.partition(".")[2]
            found |= {alias.asname or alias.name: f"{base}.{alias.name}".lstrip(".") for alias in node.names}
    return found


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    """The calls below a node in the order in which they run, nearly: arguments first, then top to bottom."""
    for child in ast.iter_child_nodes(node):
        yield from _calls(child)
    if isinstance(node, ast.Call):
        yield node


def _outside(expression: ast.expr, names: Mapping[str, str]) -> set[str]:
    """The module outside of baker/build that a called name comes from, as folder/module."""
    root = expression
    while isinstance(root, ast.Attribute):
        root = root.value
    dotted = names.get(root.id, "") if isinstance(root, ast.Name) else ""
    parts = dotted.split(".")
    if len(parts) < 2 or parts[0] in PLUMBING or ".".join(parts[:2]) in PLUMBING:
        return set()
    while len(parts) > 1 and not (ROOT / PACKAGE / Path(*parts)).with_suffix(".py").exists():
        parts.pop()
    return {"/".join(parts)}


def way() -> list[Row]:
    """The recipe's calls, those of make() in the place where bake() calls it."""
    code, path = Code(), ROOT / PACKAGE / RECIPE
    tree = ast.parse(path.read_text())
    names, functions = _imports(tree), {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    rows = [Row(call, module, _about(module, name)) for call, module, name in FIRST]
    rows += _rows(code, functions["bake"], names, functions)
    return rows + [Row(call, module, _about(module, name), "later, by commands of their own") for call, module, name in LAST]


def _rows(
    code: Code, function: ast.FunctionDef, names: Mapping[str, str], here: Mapping[str, ast.FunctionDef], inside: str = ""
) -> Iterator[Row]:
    """The calls of a function of the recipe that report a stage or use another folder; the others are about the log."""
    for call, condition in _conditional(function.body, ""):
        if isinstance(call.func, ast.Name) and call.func.id in here:
            yield from _rows(code, here[call.func.id], names, here, f"{call.func.id}()")
        elif found := code.find(call.func, names, _dotted(RECIPE), {}):
            reached = Reached()
            code.follow(found, reached, set())
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
                yield from ((call, condition) for call in _calls(item.context_expr))
            yield from _conditional(statement.body, condition)
        else:
            yield from ((call, condition) for call in _calls(statement))


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
