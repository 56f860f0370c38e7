"""Replaces expressions, `${{ var.x }}`, by the values of the names in them. Nothing is evaluated.

A scalar that is exactly one expression becomes the value itself (a list stays a list); inside other text the value is inserted as
text. `$${{` stands for a literal `${{`. An unknown name is reported at the place of its expression.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from baker.template.yaml_document import Item, Place, Problems, quote, suggest, wrap

OPEN = "${{"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)+")
_PIECES = re.compile(r"(?P<escape>\$\$\{\{)|\$\{\{(?P<name>.*?)(?P<close>\}\}|\Z)", re.DOTALL)


class NoValue(Exception):
    """A name that has no value. The message is empty if the problem has been reported elsewhere."""

    def __init__(self, message: str = "", hint: str = "", *, code: str = "template.unknown-name") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class Scope:
    """The names that expressions may use: root ("var", "env", ...) -> lookup of the rest. A lookup raises NoValue."""

    roots: Mapping[str, Callable[[str], Any]]
    sensitive: frozenset[str] = frozenset()  # "var.token": names whose values must not be recorded
    extra: Mapping[str, str] = field(default_factory=dict)  # root -> why it cannot be used here

    def plus(self, **roots: Callable[[str], Any]) -> Scope:
        return Scope({**self.roots, **roots}, self.sensitive, self.extra)

    def lookup(self, name: str) -> Any:
        root, _, rest = name.partition(".")
        if root in self.extra and root not in self.roots:
            raise NoValue(f"{name} cannot be used here", self.extra[root], code="template.name-not-here")
        if root not in self.roots:
            raise NoValue(f"unknown name {name}", suggest(root, [f"{each}" for each in self.roots]))
        return self.roots[root](rest)


def named(values: Mapping[str, Any], what: str, used: set[str] | None = None) -> Callable[[str], Any]:
    """Return a lookup in `values`; further dots look up keys of maps. A value of NoValue means that its problem has been reported."""

    def lookup(rest: str) -> Any:
        first, *deeper = rest.split(".")
        if first not in values:
            raise NoValue(f"unknown {what} {quote(first)}", suggest(first, list(values)) or f"there is no {what} here")
        if used is not None:
            used.add(first)
        value = values[first]
        for key in deeper:
            if not isinstance(value, Mapping) or key not in value:
                hint = suggest(key, list(value)) if isinstance(value, Mapping) else ""
                raise NoValue(f"{what} {quote(first)} has no key {quote(key)}", hint)
            value = value[key]
        if value is NoValue:
            raise NoValue
        return value

    return lookup


def interpolate(item: Item, scope: Scope, problems: Problems, *, public: bool = False) -> Item:
    """Return `item` with every expression replaced. `public`: report sensitive values, because the item is recorded (names, labels)."""
    if isinstance(item.value, dict):
        found = {key: interpolate(each, scope, problems, public=public) for key, each in item.value.items()}
        return Item(found, item.place, item.keys, broken=item.broken)
    if isinstance(item.value, list):
        return Item([interpolate(each, scope, problems, public=public) for each in item.value], item.place, broken=item.broken)
    if isinstance(item.value, str) and OPEN in item.value:
        return _Scalar(item, scope, problems, public).result()
    return item


class _Scalar:
    """One string with expressions in it."""

    def __init__(self, item: Item, scope: Scope, problems: Problems, public: bool) -> None:
        self.item = item
        self.scope = scope
        self.problems = problems
        self.public = public
        self.broken = False

    def result(self) -> Item:
        text: str = self.item.value
        pieces = list(_PIECES.finditer(text))
        places = self.places()
        if len(pieces) == 1 and not pieces[0]["escape"] and pieces[0].span() == (0, len(text)):
            value = self.value(pieces[0], places[0])
            found = wrap(None if self.broken else value, self.item.place)
        else:
            parts, at = [], 0
            for piece, place in zip(pieces, places, strict=False):
                parts += [text[at : piece.start()], OPEN if piece["escape"] else self.text(piece, place)]
                at = piece.end()
            found = Item("".join([*parts, text[at:]]), self.item.place)
        found.source, found.broken, found.plain = self.item.source, self.broken, False
        found.start, found.end = self.item.start, self.item.end
        return found

    def places(self) -> list[Place]:
        """The place of each expression, searched in the document's text, because quotes and indentation move it."""
        document = self.item.place.document
        raw = document.text[self.item.start : self.item.end]
        found = [document.at(self.item.start + match.start()) for match in _PIECES.finditer(raw)]
        wanted = len(list(_PIECES.finditer(self.item.value)))
        return found if len(found) == wanted else [self.item.place] * wanted

    def value(self, piece: re.Match[str], place: Place) -> Any:
        name = piece["name"].strip()
        if not piece["close"]:
            return self.bad(
                place, "the expression is not closed", "write ${{ name }}, or $${{ for a literal ${{", code="template.open-expression"
            )
        if not _NAME.fullmatch(name):
            roots = ", ".join(f"{root}." for root in self.scope.roots)
            return self.bad(
                place, f"{quote(name)} is not a name: nothing is evaluated here", f"names start with {roots}", code="template.not-a-name"
            )
        if self.public and any(name == each or name.startswith(each + ".") for each in self.scope.sensitive):
            return self.bad(
                place,
                f"{name} is sensitive and would be recorded here",
                "use it in a provisioner only",
                code="template.sensitive-on-record",
            )
        try:
            return self.scope.lookup(name)
        except NoValue as error:
            return self.bad(place, error.message, error.hint, code=error.code)

    def text(self, piece: re.Match[str], place: Place) -> str:
        value = self.value(piece, place)
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, list | tuple | Mapping):
            kind = "map" if isinstance(value, Mapping) else "list"
            name = piece["name"].strip()
            message, hint = f"{name} is a {kind} and cannot be part of a text", "let the expression be the whole value"
            self.bad(place, message, hint, code="template.not-text")
            return ""
        return "" if value is None else str(value)

    def bad(self, place: Place, message: str, hint: str, *, code: str) -> None:
        self.broken = True
        if message:
            self.problems.add(place, message, hint, code=code)
