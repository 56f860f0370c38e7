"""Resolves variables and parameters from their declarations and the values that the user gives.

A value is taken from --var, else a --var-file, else BAKE_VAR_<name> in the environment, else the default. Text from a command line or the
environment is converted to the declared type; a value from YAML must already have it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baker.template.bundles import Files
from baker.template.interpolate import NoValue
from baker.template.language import VARIABLE_NAME, VariableSpec
from baker.template.model import Variable
from baker.template.yaml_document import Document, Item, Place, Problems, parse, quote, resolve, suggest, wrap

PREFIX = "BAKE_VAR_"
_ARTICLES = {
    "string": "a string", "number": "a number", "integer": "a whole number", "boolean": "true or false", "list": "a list", "map": "a map",
}  # fmt: skip


@dataclass(frozen=True)
class Given:
    """A value from outside the template. `text`: it is text to convert to the declared type; otherwise it is YAML and has a type."""

    item: Item
    origin: str
    text: bool = False


def outside(label: str, value: Any = None) -> Item:
    """An item for a value that is not in a file; messages name it by `label`."""
    return wrap(value, Place(Document(Path(label), label, "", private=True), 0, 0))


def from_command_line(variables: Mapping[str, str]) -> dict[str, Given]:
    return {name: Given(outside(f"--var {name}", value), "--var", text=True) for name, value in variables.items()}


def from_environment(env: Mapping[str, str], declared: Iterable[str]) -> dict[str, Given]:
    """The values of BAKE_VAR_* for declared variables. Others are ignored: they may be meant for another template."""
    names = [name for name in declared if PREFIX + name in env]
    return {name: Given(outside(PREFIX + name, env[PREFIX + name]), PREFIX + name, text=True) for name in names}


def from_files(paths: Sequence[Path], files: Files, problems: Problems) -> dict[str, Given]:
    """The values in YAML files of `name: value`; a later file overrides an earlier one."""
    found: dict[str, Given] = {}
    for path in paths:
        document = files.read(path, str(path), private=True)
        root = parse(document, problems) if document else None
        if root is None:
            continue
        if not isinstance(root.value, dict):
            problems.add(
                root.place, "a variable file is a mapping of names to values", "write e.g. site_title: Hello", code="template.wrong-type"
            )
            continue
        found |= {name: Given(item, str(path)) for name, item in root.value.items()}
    return found


def resolve_all(
    specs: Mapping[str, VariableSpec], declared: Item, given: Sequence[Mapping[str, Given]], problems: Problems, what: str = "variable"
) -> dict[str, Variable]:
    """Return the value of each declared name. A name with a problem is reported and left out.

    `given` is in order of priority. `declared` has the places of the declarations.
    """
    for source in given:
        for name, value in source.items():
            if name not in specs:
                hint = suggest(name, list(specs)) or f"no {what}s are declared"
                problems.add(value.item.place, f"there is no {what} {quote(name)}", hint, code=f"template.unknown-{what}")
            elif specs[name].sensitive:
                _hide(name, value.item.data(), problems)
    found = {}
    for name, spec in specs.items():
        variable = _resolve_one(name, spec, declared, next((source[name] for source in given if name in source), None), problems, what=what)
        if variable is not None:
            found[name] = variable
    return found


def _resolve_one(name: str, spec: VariableSpec, declared: Item, given: Given | None, problems: Problems, *, what: str) -> Variable | None:
    place = declared.place if what == "parameter" else declared.keys.get(name, declared.place)
    kind = spec.type or _type_of(spec.default)
    sound = _declaration(name, spec, kind, declared, problems)
    if given is None:
        if not spec.optional:
            ways = f"--var {name}=..., or {PREFIX}{name} in the environment" if what == "variable" else f"with: {{{name}: ...}}"
            problems.add(place, f"the {what} {name} has no value", f"give one: {ways}", code=f"template.missing-{what}")
            return None
        return Variable(name, spec.default, kind, spec.sensitive, "default") if sound else None
    if not sound or any(each.broken for each in given.item.walk()):
        return None
    try:
        value = convert(given.item.value, kind) if given.text else _typed(given.item, kind)
        _check(value, spec)
    except ValueError as error:
        problems.add(given.item.place, f"the {what} {name} {error}", code=f"template.bad-{what}")
        return None
    return Variable(name, value, kind, spec.sensitive, given.origin)


def _declaration(name: str, spec: VariableSpec, kind: str, declared: Item, problems: Problems) -> bool:
    """Report problems of a declaration, apart from the value that is given; True if there are none."""
    here = declared.value[name]
    place = declared.keys.get(name, here.place)
    before = len(problems.list())
    if not re.match(VARIABLE_NAME, name):
        problems.add(place, f"{quote(name)} is not a name: letters, digits and _, no digit first", code="template.bad-name")
    if spec.sensitive and kind == "boolean":
        problems.add(
            place, f"{name}: a boolean cannot be sensitive", "two guesses are enough to find its value", code="template.sensitive-boolean"
        )
    if spec.pattern is not None:
        pattern_item = here.get("pattern") or here
        if kind != "string":
            problems.add(pattern_item.place, f"{name}: a pattern is for strings, not for {kind}s", code="template.bad-pattern")
        try:
            re.compile(spec.pattern)
        except re.error as error:
            problems.add(pattern_item.place, f"{name}: the pattern is not a regular expression: {error}", code="template.bad-pattern")
            return False
    default = here.get("default")
    if default is not None and spec.default is not None and not any(each.broken for each in default.walk()):
        try:
            _typed(default, kind)
            _check(spec.default, spec)
        except ValueError as error:
            problems.add(default.place, f"the default of {name} {error}", code="template.bad-default")
    return len(problems.list()) == before


def _type_of(default: Any) -> str:
    for kind, types in (("boolean", bool), ("integer", int), ("number", float), ("list", list), ("map", Mapping)):
        if isinstance(default, types):
            return kind
    return "string"


def _typed(item: Item, kind: str) -> Any:
    """The value of a YAML item, which must be of type `kind`."""
    value = item.data()
    if kind == "string" and isinstance(value, bool | int | float) and item.plain:
        raise ValueError(f'must be a string: write "{item.source}" in quotes')
    if not _is(value, kind):
        raise ValueError(f"must be {_ARTICLES[kind]}")
    return value


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    types: dict[str, Any] = {"string": str, "number": int | float, "integer": int, "list": list, "map": dict}
    return isinstance(value, types.get(kind, ()))


def convert(text: str, kind: str) -> Any:
    """Convert text from a command line or the environment to type `kind`. ValueError, whose message lacks the text, when that fails."""
    if kind == "string":
        return text
    if kind in ("list", "map"):
        value = _yaml(text)
        if not _is(value, kind):
            example = "[a, b]" if kind == "list" else "{key: value}"
            raise ValueError(f"must be {_ARTICLES[kind]} as in {example}")
        return value
    value = resolve(text.strip())
    if kind == "boolean" and text.strip() in ("1", "0"):
        return text.strip() == "1"
    if not _is(value, kind) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"must be {_ARTICLES[kind]}")
    return value


def _yaml(text: str) -> Any:
    problems = Problems()
    root = parse(Document(Path("value"), "value", text, private=True), problems)
    if root is None or problems:
        raise ValueError("is not YAML")
    return root.data()


def _check(value: Any, spec: VariableSpec) -> None:
    if spec.allowed is not None and not any(value == each and type(value) is type(each) for each in spec.allowed):
        raise ValueError(f"must be one of {', '.join(map(str, spec.allowed))}")
    if spec.pattern is not None and isinstance(value, str) and not re.fullmatch(spec.pattern, value):
        raise ValueError(f"must match {spec.pattern}")


def values(variables: Mapping[str, Variable], specs: Iterable[str]) -> dict[str, Any]:
    """Name -> value for lookups. The value is NoValue for a name whose problem has been reported."""
    return {name: variables[name].value if name in variables else NoValue for name in specs}


def secret_values(variables: Mapping[str, Variable], prefix: str = "") -> dict[str, str]:
    """Name -> text of the sensitive values among `variables`. Each value in a list or a map has its own entry."""
    return {
        prefix + name: text
        for variable in variables.values()
        if variable.sensitive
        for name, text in _leaves(variable.name, variable.value)
    }


def _leaves(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _leaves(f"{name}.{key}", each)
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _leaves(f"{name}.{index}", each)
    elif value is not None and not isinstance(value, bool) and str(value):
        yield name, str(value)


def _hide(name: str, value: Any, problems: Problems) -> None:
    for leaf, text in _leaves(name, value):
        problems.hide(leaf, text)


def hide_defaults(specs: Mapping[str, VariableSpec], problems: Problems) -> None:
    """Hide the sensitive defaults in messages."""
    for name, spec in specs.items():
        if spec.sensitive:
            _hide(name, spec.default, problems)


def as_json(variables: Mapping[str, Variable]) -> dict[str, Any]:
    """Name -> value, as JSON values, of the variables that are not sensitive."""
    kept: dict[str, Any] = json.loads(json.dumps({name: each.value for name, each in variables.items() if not each.sensitive}))
    return kept
