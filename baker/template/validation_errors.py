"""Turns pydantic's errors into problems at the place where the user typed the value, with what would be right."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from baker.template.yaml_document import Item, Place, Problems, quote, suggest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)

_WANTED = {  # pydantic's error type -> what the value should be
    "string_type": "a string", "path_type": "a path", "int_type": "a whole number", "int_parsing": "a whole number",
    "int_from_float": "a whole number", "float_type": "a number", "float_parsing": "a number", "bool_type": "true or false",
    "bool_parsing": "true or false", "list_type": "a list", "tuple_type": "a list", "set_type": "a list", "frozen_set_type": "a list",
    "dict_type": "a mapping", "mapping_type": "a mapping", "model_type": "a mapping", "model_attributes_type": "a mapping",
    "dataclass_type": "a mapping",
}  # fmt: skip
_LIMITS = {
    "greater_than_equal": ("at least", "ge"), "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"), "less_than": ("less than", "lt"),
}  # fmt: skip
_SHAPES = {  # a pattern that fails is explained by the key it belongs to
    "name": "lower-case letters, digits, and . _ - inside, as in web or debian-13",
    "version": "a semantic version, as in 1.4.0 or 2.0.0-rc.1",
    "checksum": "sha256: and 64 hex digits, or sha512: and 128, in lower case",
    "url": "a URL that starts with http:// or https://",
    "mirror": "a URL that starts with http://, https:// or file://",
    "suite": "a code name, as in trixie",
    "hostname": "letters, digits and - inside",
    "uri": "a libvirt URI, as in qemu:///system or qemu+ssh://user@host/system",
    "machine_type": "a machine type of QEMU, as in q35 or pc-i440fx-7.2",
    "packages": "the name of a Debian package, as in nginx, nginx=1.22.1-9 or nginx/trixie-backports",
    "image": "a name, name@version, name@channel, sha256:..., or an id",
    "region": "a region, as in eu-west-1",
    "vpc_id": "vpc- and hexadecimal digits",
    "ami": "ami- and hexadecimal digits, as in ami-0123456789abcdef0",
    "role_arn": "a role's ARN, as in arn:aws:iam::123456789012:role/baker",
    "max_price": 'dollars per hour, as in "0.05"',
}


def validate(model: type[Model], item: Item, problems: Problems, label: str = "") -> Model | None:
    """Return `item` as a `model`, or None after reporting everything that does not fit. `label` is the key that `item` belongs to."""
    try:
        return model.model_validate(item.data())
    except ValidationError as error:
        explain(error.errors(include_url=False), model, item, problems, label)
        return None


def explain(errors: list[ErrorDetails], model: type[BaseModel], root: Item, problems: Problems, label: str = "") -> None:
    """Report `errors` of validating `root`."""
    located = [_Located(error, root, label) for error in errors]
    seen: set[int] = set()
    for found in located:
        item = found.item
        if any(each.broken for each in item.walk()) or id(item) in seen:
            continue
        if (found.branch or found.kind == "too_short") and any(other.inside(found) for other in located):
            continue  # another branch of the union got further, or an element is missing: that error helps more
        if found.kind in _WANTED:
            seen.add(id(item))
            same = [each for each in located if each.item is item and each.kind in _WANTED]
            _wrong_type(found, " or ".join(dict.fromkeys(_WANTED[each.kind] for each in same)), problems)
        else:
            _other(found, model, problems)


class _Located:
    """An error with the item that it is about."""

    def __init__(self, error: ErrorDetails, root: Item, label: str) -> None:
        self.error = error
        self.label = label
        self.kind = error["type"]
        self.branch = False  # the error lies inside one branch of a union
        self.path: list[str | int] = []
        self.item, self.place = root, root.place
        loc = list(error["loc"])
        if self.kind in ("missing", "extra_forbidden"):
            loc.pop()
        for part in loc:
            self._enter(part)
        self.name = str(error["loc"][-1]) if error["loc"] else ""

    def _enter(self, part: str | int) -> None:
        value: Any = self.item.value
        below: Item | None = None
        if isinstance(value, dict):
            below = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and 0 <= part < len(value):
            below = value[part]
        if below is None:
            self.branch = True
            return
        self.item = below
        self.place = self.item.place
        self.path.append(part)

    def inside(self, other: _Located) -> bool:
        """True when this error is about a part of what `other` is about."""
        return len(self.path) > len(other.path) and self.path[: len(other.path)] == other.path


def _wrong_type(found: _Located, wanted: str, problems: Problems) -> None:
    item, key = found.item, _key(found)
    value = item.value
    if value is None:
        problems.add(item.place, f"{key} is empty: expected {wanted}", code="template.empty-value")
    elif "a string" in wanted and item.plain and isinstance(value, bool | int | float):
        kind = "true or false" if isinstance(value, bool) else "a number"
        message = f"{key} must be {wanted}, but YAML reads {item.source} as {kind}"
        problems.add(item.place, message, f'write "{item.source}" in quotes', code="template.needs-quotes")
    else:
        problems.add(item.place, f"{key} must be {wanted}, not {_kind(item)}", code="template.wrong-type")


def _other(found: _Located, model: type[BaseModel], problems: Problems) -> None:
    error, item, key = found.error, found.item, _key(found)
    context = error.get("ctx", {})
    if found.kind == "missing":
        fields = known_keys(model, found.path)
        problems.add(item.place, f"the key {quote(found.name)} is missing", fields.get(found.name, ""), code="template.missing-key")
    elif found.kind == "extra_forbidden":
        known = [each for each in known_keys(model, found.path) if each not in (item.value or {})]
        place = item.keys.get(found.name, item.place)
        problems.add(place, f"unknown key {quote(found.name)}", suggest(found.name, known), code="template.unknown-key")
    elif found.kind == "literal_error":
        choices = str(context["expected"]).replace("'", "")
        problems.add(item.place, f"{key} must be {choices}, not {_kind(item)}", code="template.not-a-choice")
    elif found.kind in _LIMITS:
        words, name = _LIMITS[found.kind]
        problems.add(item.place, f"{key} must be {words} {context[name]:g}, not {_kind(item)}", code="template.out-of-range")
    elif found.kind == "string_pattern_mismatch":
        name = next((part for part in reversed(found.path) if isinstance(part, str)), "")  # an element is explained by its list's key
        shape = _SHAPES.get(name, f"text that matches {context['pattern']}")
        problems.add(item.place, f"{key} is {_kind(item)}: expected {shape}", code="template.bad-format")
    elif found.kind == "value_error":
        text = str(context.get("error", error["msg"]))
        problems.add(item.place, f"{key}: {text}" if found.path or found.label else text, code="template.bad-value")
    elif found.kind in ("too_short", "string_too_short"):
        problems.add(item.place, f"{key} must not be empty", code="template.empty-value")
    else:  # a PydanticCustomError of a plugin may have its own code, "openstack.unknown-flavor"; pydantic's types have no dot
        code = found.kind if "." in found.kind else "template.bad-value"
        problems.add(item.place, f"{key}: {error['msg'][:1].lower()}{error['msg'][1:]}", code=code)


def _key(found: _Located) -> str:
    """The name of the item in messages: `builder.cpus`, `packages[1]`."""
    text = found.label
    for part in found.path:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "this"


def _kind(item: Item) -> str:
    """A description of a value that follows "not". An expression is shown as typed, never by its value."""
    if isinstance(item.value, dict):
        return "a mapping"
    if isinstance(item.value, list):
        return "a list"
    return item.source if item.plain and not isinstance(item.value, str) else quote(item.source or item.value)


def known_keys(model: Any, path: list[str | int]) -> dict[str, str]:
    """The keys that may stand at `path` below `model`, with their descriptions."""
    for part in path:
        candidates = [step for each in _models(model) for step in _below(each, part)]
        model = Union[tuple(candidates)] if candidates else None  # noqa: UP007 - of a computed list
    return {
        field.alias or name: field.description or ""
        for each in _models(model)
        if isinstance(each, type) and issubclass(each, BaseModel)
        for name, field in each.model_fields.items()
    }


def _models(annotation: Any) -> Iterator[Any]:
    """The alternatives of a type, without Annotated and None."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _models(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for each in get_args(annotation):
            yield from _models(each)
    elif annotation is not None and annotation is not type(None):
        yield annotation


def _below(annotation: Any, part: str | int) -> Iterator[Any]:
    """The type of the element `part` of a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            if part in (name, field.alias):
                yield field.annotation
    else:
        arguments = get_args(annotation)
        if isinstance(part, int) and arguments:
            yield arguments[0]
        elif arguments and issubclass(get_origin(annotation) or object, Mapping):
            yield arguments[-1]


def at_key(item: Item, key: str) -> Place:
    """The place of a mapping's key."""
    return item.keys.get(key, item.place)
