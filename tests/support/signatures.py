"""Compares the members and signatures of a fake with those of the real class.

A fake whose signature is another one hides calls that would fail on the real thing.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any


def mismatches(fake: type, real: type, *, whole: bool) -> Iterator[str]:
    """The differences of `fake` from `real`: a member that is missing, unknown or of another kind, or parameters with other names, kinds,
    order or defaults. With `whole`, `fake` must have all public members of `real` and may have more; otherwise it has some of them and
    no other methods."""
    theirs, ours = _members(real), _members(fake)
    if whole:
        yield from (f"{fake.__name__} has no {name}" for name in theirs if not name.startswith("_") and name not in ours)
    for name, ours_value in vars(fake).items() if not whole else ours.items():
        if name.startswith("__") and name != "__call__":
            continue
        if name not in theirs:
            if not whole and _is_member(ours_value):
                yield f"{fake.__name__}.{name} stands for nothing in {real.__name__}"
        elif callable(theirs[name]) and callable(ours_value):
            wanted, found = shape(theirs[name]), shape(ours_value)
            if wanted != found:
                yield f"{fake.__name__}.{name} takes {found}, and {real.__name__}.{name} {wanted}"
        elif callable(theirs[name]) != callable(ours_value):
            yield f"{fake.__name__}.{name} and {real.__name__}.{name} are not both methods"


def shape(function: Callable[..., Any]) -> list[tuple[str, str, Any]]:
    """Name, kind and default of each parameter but `self`; mypy checks the types."""
    parameters = list(inspect.signature(function).parameters.values())
    return [(each.name, each.kind.description, _default(each)) for each in parameters if each.name != "self"]


def _default(parameter: inspect.Parameter) -> Any:
    return "none" if parameter.default is inspect.Parameter.empty else (parameter.default,)


def _members(kind: type) -> dict[str, Any]:
    """The members of a class and its bases by name; one that is only annotated, as a field of a dataclass is, has None."""
    found: dict[str, Any] = {}
    for each in reversed(kind.__mro__):
        if each.__module__ in ("builtins", "typing"):
            continue
        found |= dict.fromkeys(inspect.get_annotations(each))
        found |= {name: value for name, value in vars(each).items() if not name.startswith("_abc")}
    return {name: value for name, value in found.items() if not name.startswith("__") or name == "__call__"}


def _is_member(value: Any) -> bool:
    return inspect.isfunction(value) or isinstance(value, (property, functools.cached_property, staticmethod, classmethod))
