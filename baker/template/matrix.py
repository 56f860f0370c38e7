"""Expands a matrix: one image for each combination of the values of its axes.

matrix:
  release: [trixie, bookworm]
  flavour: [plain, docker]
  exclude: [{release: bookworm, flavour: docker}]
  include: [{release: sid, flavour: plain}]
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from baker.template.yaml_document import Item, Problems, quote, suggest

LARGEST = 64  # images of one template
OWN_KEYS = ("exclude", "include")
_AXIS = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def combinations(item: Item | None, problems: Problems) -> list[dict[str, Any]]:
    """Return every combination, in the order of the file. Without a matrix, or after a problem, that is a single empty one."""
    if item is None or item.value is None:
        return [{}]
    if not isinstance(item.value, dict):
        problems.add(
            item.place, "a matrix is a mapping of axes to lists of values", "write e.g. release: [trixie, bookworm]", code="template.matrix"
        )
        return [{}]
    axes = {name: axis for name, each in item.value.items() if name not in OWN_KEYS and (axis := _axis(name, each, item, problems))}
    if not axes:
        problems.add(item.place, "the matrix has no axis", "write e.g. release: [trixie, bookworm]", code="template.matrix")
        return [{}]
    excluded = list(_rows(item.value.get("exclude"), axes, problems, whole=False))
    included = list(_rows(item.value.get("include"), axes, problems, whole=True))
    every = itertools.islice(itertools.product(*axes.values()), LARGEST * 16)
    product: list[dict[str, Any]] = [dict(zip(axes, row, strict=True)) for row in every]
    found = [row for row in product if not any(all(row[key] == value for key, value in each.items()) for each in excluded)]
    found += [row for row in included if row not in found]
    if not found:
        problems.add(item.place, "the matrix excludes every combination", "remove an entry of exclude", code="template.matrix-empty")
    if len(found) > LARGEST:
        problems.add(item.place, f"the matrix makes more than {LARGEST} images", "split the template", code="template.matrix-too-large")
    return found[:LARGEST] if found else [{}]


def _axis(name: str, item: Item, matrix: Item, problems: Problems) -> list[Any]:
    if not _AXIS.fullmatch(name):
        problems.add(matrix.keys[name], f"{quote(name)} is not a name: letters, digits, _ and -", code="template.bad-name")
        return []
    if not isinstance(item.value, list) or not item.value:
        problems.add(item.place, f"the axis {name} must be a list of values", f"write e.g. {name}: [a, b]", code="template.matrix")
        return []
    return [each.value for each in item.value if _scalar(each, problems)]


def _scalar(item: Item, problems: Problems) -> bool:
    if item.value is None or isinstance(item.value, dict | list):
        problems.add(item.place, "a value of a matrix must be a string, a number, true or false", code="template.matrix")
        return False
    if isinstance(item.value, float) and item.plain:
        problems.add(
            item.place,
            f"YAML reads {item.source} as a number: {item.value:g}",
            f'write "{item.source}" in quotes',
            code="template.needs-quotes",
        )
        return False
    return True


def _rows(item: Item | None, axes: Mapping[str, Sequence[Any]], problems: Problems, *, whole: bool) -> Iterator[dict[str, Any]]:
    """The rows of `exclude` (some axes) and `include` (all axes)."""
    if item is None:
        return
    if not isinstance(item.value, list):
        problems.add(item.place, "must be a list of combinations", "write e.g. - {release: trixie}", code="template.matrix")
        return
    for row in item.value:
        if not isinstance(row.value, dict) or not row.value:
            problems.add(row.place, "a combination is a mapping of axes to values", code="template.matrix")
            continue
        scalars = [_scalar(each, problems) for each in row.value.values()]
        unknown = [key for key in row.value if key not in axes]
        for key in unknown:
            problems.add(row.keys[key], f"there is no axis {quote(key)}", suggest(key, list(axes)), code="template.unknown-axis")
        missing = [key for key in axes if key not in row.value] if whole else []
        if missing:
            problems.add(row.place, f"the combination has no value for {' and '.join(missing)}", code="template.matrix")
        if not unknown and not missing and all(scalars):
            yield {key: row.value[key].value for key in (axes if whole else row.value)}


def names(base: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each combination: the names in `base` if they differ, else those with the values appended."""
    if len(set(base)) == len(base):
        return list(base)
    return ["-".join([name, *(slug(value) for value in row.values())]) for name, row in zip(base, rows, strict=True)]


def slug(value: Any) -> str:
    """A value in the form in which it is part of an image's name."""
    return re.sub(r"[^a-z0-9._-]+", "-", str(value).lower()).strip("-._")


def selected(name: str, row: Mapping[str, Any], only: Sequence[str], except_: Sequence[str]) -> bool:
    """Whether an image matches `only` (empty: any image does) and does not match `except_`: names with * and ?, or axis=value."""
    return (not only or any(_matches(each, name, row) for each in only)) and not any(_matches(each, name, row) for each in except_)


def _matches(pattern: str, name: str, row: Mapping[str, Any]) -> bool:
    axis, equals, value = pattern.partition("=")
    if equals:
        return axis in row and fnmatchcase(str(row[axis]).lower(), value.lower())
    return fnmatchcase(name, pattern)
