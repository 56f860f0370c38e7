"""Who calls whom in baker/build, from the syntax alone: nothing is imported or run.

What a call means is known from imports, from annotations, and from what a name was bound to. A call that none of these explains is left
out; tests/unit/test_docs.py sees to it that no stage of a build is lost that way.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE, FOLDER = "baker", "build"
PLUMBING = {FOLDER, "core", "catalog.records", "render"}  # what every stage uses says nothing about it


@dataclass(frozen=True)
class Function:
    """A function or method of baker/build."""

    module: str  # build/stages.py
    owner: str  # the class of a method, else ""
    node: ast.FunctionDef
    names: Mapping[str, str]  # what the module's imports mean: stages -> build.stages, seal -> build.seal.seal


@dataclass
class Scope:
    """What the names in a function mean: modules and functions that were imported, classes of values."""

    module: str  # build.stages
    names: Mapping[str, str]
    types: dict[str, str]


@dataclass
class Reached:
    """What a call comes to: the stages that it reports, in order, and what it uses outside of baker/build."""

    stages: list[str] = field(default_factory=list)
    uses: set[str] = field(default_factory=set)


class Code:
    """The functions and classes of baker/build."""

    def __init__(self) -> None:
        self.functions: dict[tuple[str, str], Function] = {}  # by module or class, and name
        self.classes: dict[str, ast.ClassDef] = {}
        for path in sorted((ROOT / PACKAGE / FOLDER).glob("*.py")):
            tree, module = ast.parse(path.read_text()), f"{FOLDER}/{path.name}"
            for top in tree.body:
                owner = top.name if isinstance(top, ast.ClassDef) else ""
                if isinstance(top, ast.ClassDef):
                    self.classes[owner] = top
                for node in top.body if isinstance(top, ast.ClassDef) else (top,):
                    if isinstance(node, ast.FunctionDef):
                        self.functions[owner or dotted(module), node.name] = Function(module, owner, node, imports(tree))
        self.fields = {name: self._fields(name) for name in self.classes}

    def find(self, called: ast.expr, scope: Scope) -> Function | None:
        """The function that an expression means."""
        if isinstance(called, ast.Name):
            home, _, name = scope.names.get(called.id, f"{scope.module}.{called.id}").rpartition(".")
            return self.functions.get((home, name)) or self._method(name, "__init__")
        if isinstance(called, ast.Attribute):
            module = scope.names.get(called.value.id, "") if isinstance(called.value, ast.Name) else ""
            return self._method(self._type(called.value, scope), called.attr) or self.functions.get((module, called.attr))
        return None

    def reached(self, function: Function) -> Reached:
        """What a call of the function comes to."""
        found = Reached()
        self._follow(function, found, set())
        return found

    def _follow(self, function: Function, reached: Reached, seen: set[int]) -> None:
        """Everything that a function calls, depth first, in the order of the text."""
        if id(function.node) in seen:
            return
        seen.add(id(function.node))
        scope = self._scope(function)
        for call in calls(function.node):
            if isinstance(call.func, ast.Attribute) and call.func.attr == "stage" and isinstance(call.args[0], ast.Constant):
                stage = str(call.args[0].value)
                reached.stages = [*(one for one in reached.stages if one != stage), stage]
            for expression in (call.func, *call.args):  # pool.submit(inspect, ...) calls inspect
                reached.uses |= _outside(expression, scope.names)
                if below := self.find(expression, scope):
                    self._follow(below, reached, seen)

    def _scope(self, function: Function) -> Scope:
        """What names mean in a function: also `self`, annotated parameters, and names that a value was bound to."""
        types = {"self": function.owner} if function.owner else {}
        arguments = function.node.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            types[argument.arg] = types.get(argument.arg) or self._named(argument.annotation)
        scope = Scope(dotted(function.module), {**function.names, **imports(function.node)}, types)
        for _ in range(2):  # a name may be bound to what belongs to a name that is bound further up
            for target, value in _bindings(function.node):
                if isinstance(target, ast.Name) and (kind := self._type(value, scope)):
                    types[target.id] = kind
        return scope

    def _type(self, expression: ast.expr, scope: Scope) -> str:
        """The class of baker/build that a value has; "" where that is another one or unknown."""
        if isinstance(expression, ast.Name):
            return scope.types.get(expression.id, "")
        if isinstance(expression, ast.Attribute):
            return self.fields.get(self._type(expression.value, scope), {}).get(expression.attr, "")
        if isinstance(expression, ast.Call):
            if isinstance(expression.func, ast.Name) and expression.func.id in self.classes:
                return expression.func.id
            found = self.find(expression.func, scope)
            return self._named(found.node.returns) if found else ""
        return ""

    def _method(self, owner: str, name: str) -> Function | None:
        """A method of a class, or of a class that it is derived from."""
        if owner not in self.classes:
            return None
        bases = [base.id for base in self.classes[owner].bases if isinstance(base, ast.Name)]
        return self.functions.get((owner, name)) or next((found for base in bases if (found := self._method(base, name))), None)

    def _fields(self, owner: str) -> dict[str, str]:
        """The attributes of a class that are annotated or set in a method, and its properties, with their classes."""
        found: dict[str, str] = {}
        for node in ast.walk(self.classes[owner]):
            if isinstance(node, ast.AnnAssign):
                name = node.target.attr if isinstance(node.target, ast.Attribute) else ast.unparse(node.target)
                found[name] = self._named(node.annotation)
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name):
                kind = node.value.func.id
                found |= {target.attr: kind for target in node.targets if isinstance(target, ast.Attribute) and kind in self.classes}
            elif isinstance(node, ast.FunctionDef):
                found.setdefault(node.name, self._named(node.returns))
        return found

    def _named(self, annotation: ast.expr | None) -> str:
        """The first class of baker/build in an annotation such as `Iterator[StartedMachine]` or `Layering | None`."""
        names = (node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)) if annotation else ()
        return next((name for name in names if name in self.classes), "")


def dotted(module: str) -> str:
    return module.removesuffix(".py").replace("/", ".")


def imports(tree: ast.AST) -> dict[str, str]:
    """Local name -> dotted name below baker, of the import statements directly in a module or anywhere in a function."""
    found: dict[str, str] = {}
    for node in ast.walk(tree) if isinstance(tree, ast.FunctionDef) else ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
            base = node.module.partition(".")[2]
            found |= {alias.asname or alias.name: f"{base}.{alias.name}".lstrip(".") for alias in node.names}
    return found


def calls(node: ast.AST) -> Iterator[ast.Call]:
    """The calls below a node in the order in which they run, nearly: arguments first, then top to bottom."""
    for child in ast.iter_child_nodes(node):
        yield from calls(child)
    if isinstance(node, ast.Call):
        yield node


def _bindings(function: ast.FunctionDef) -> Iterator[tuple[ast.expr | None, ast.expr]]:
    """Names and the values that `with`, `for`, `=` and `:=` bind them to."""
    for node in ast.walk(function):
        if isinstance(node, ast.withitem):
            yield node.optional_vars, node.context_expr
        elif isinstance(node, ast.Assign):
            yield from ((target, node.value) for target in node.targets)
        elif isinstance(node, ast.NamedExpr):
            yield node.target, node.value
        elif isinstance(node, ast.For):
            yield node.target, node.iter


def _outside(expression: ast.expr, names: Mapping[str, str]) -> set[str]:
    """The module outside of baker/build that a called name comes from, as folder/module."""
    root = expression
    while isinstance(root, ast.Attribute):
        root = root.value
    parts = (names.get(root.id, "") if isinstance(root, ast.Name) else "").split(".")
    if len(parts) < 2 or parts[0] in PLUMBING or ".".join(parts[:2]) in PLUMBING:
        return set()
    while len(parts) > 1 and not (ROOT / PACKAGE / Path(*parts)).with_suffix(".py").exists():
        parts.pop()
    return {"/".join(parts)}
