"""Queries that must be fast in a catalog of 100,000 images: candidates for a reference, lineages, images by label.

Only rows that can match are read, by an index if there is one. The caller decides among them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any

from baker.catalog.mapping import build_record, image_record
from baker.catalog.records import BuildRecord, ImageRecord
from baker.catalog.reference import HEX, Candidate
from baker.catalog.repository import AT_ONCE, PRESENT, Condition, Reader, both, equal, one_of

Labels = Mapping[str, str | None]  # None: any value
PLAIN_KEY = re.compile(r"[A-Za-z0-9_./-]+")  # a label key that the JSON paths of every database can express

LINE = """
    WITH RECURSIVE line (id, parent, depth) AS (
        SELECT id, parent, 0 FROM images WHERE id = :id
        UNION ALL
        SELECT images.id, images.parent, line.depth + 1 FROM images JOIN line ON images.id = line.parent
    )
    SELECT {columns} FROM images JOIN line ON images.id = line.id ORDER BY line.depth
"""
BELOW = """
    WITH RECURSIVE line (id, parent) AS (
        SELECT id, parent FROM images WHERE {where}
        UNION
        SELECT images.id, images.parent FROM images JOIN line ON images.parent = line.id
    )
    SELECT id, parent FROM line
"""


def images(reader: Reader, condition: Condition, order: str = "serial DESC") -> list[ImageRecord]:
    """The images that meet a condition, newest first, with their disks."""
    return with_blobs(reader, reader.select("images", condition, order))


def with_blobs(reader: Reader, rows: Collection[Any]) -> list[ImageRecord]:
    """The images of rows. The disks of all of them are read in one query."""
    blobs = _parts(reader, "image_blobs", "image", [row.id for row in rows])
    for row in rows:
        row.blobs = blobs.get(row.id, [])
    return [image_record(row) for row in rows]


def builds(reader: Reader, condition: Condition, order: str = "serial DESC") -> list[BuildRecord]:
    """The builds that meet a condition, last registered first, with their steps, tests and evidence."""
    return with_parts(reader, reader.select("builds", condition, order))


def with_parts(reader: Reader, rows: Collection[Any]) -> list[BuildRecord]:
    """The builds of rows. The steps, tests and evidence of all of them are read in one query each."""
    ids = [row.id for row in rows]
    for table in ("steps", "tests", "evidence"):
        found = _parts(reader, table, "build", ids)
        for row in rows:
            setattr(row, table, found.get(row.id, []))
    return [build_record(row) for row in rows]


def candidates(reader: Reader, text: str) -> list[Candidate]:
    """The images that a reference can mean, newest first. If there are none: one for each name, for suggestions."""
    name, at, wanted = text.partition("@")
    if text.startswith("sha256:"):
        return _candidates(reader, begins("digest", text)) if text != "sha256:" else []
    exact = _candidates(reader, equal(name=name, version=wanted)) if at else []
    found = exact or _candidates(reader, equal(name=name))
    if not found and not at and HEX.fullmatch(text):
        found = _candidates(reader, begins("id", text))
    return found or [Candidate("", each, "", "") for each in names(reader)]


def names(reader: Reader, *, removed: bool = False) -> list[str]:
    """The names of all images, the name of the newest image first. `removed` includes removed images."""
    where = "1 = 1" if removed else "removed IS NULL"
    return [row.name for row in reader.stream(f"SELECT name FROM images WHERE {where} GROUP BY name ORDER BY max(serial) DESC")]


def begins(column: str, text: str) -> Condition:
    """The condition that a column of hexadecimal digits begins with `text`. It uses the index; LIKE would read every row."""
    where = f"{column} >= :first AND {column} < :last AND substr({column}, 1, :length) = :first"
    return where, {"first": text, "last": text + "z", "length": len(text)}


def named_like(reader: Reader, pattern: str, *, removed: bool) -> Condition:
    """The condition that the name of an image may match a shell pattern. The names are compared one by one, the images are not."""
    known = names(reader, removed=removed)
    fitting = [name for name in known if fnmatchcase(name, pattern)]
    if len(fitting) == len(known) or len(fitting) > AT_ONCE:
        return "1 = 1", {}  # too many names for one query: the caller compares
    return one_of("name", fitting)


def labelled(reader: Reader, labels: Labels) -> Condition:
    """The condition that an image may have these labels. The caller checks labels whose keys are not PLAIN_KEY."""
    conditions, values = ["1 = 1"], dict[str, Any]()
    for number, (key, value) in enumerate(labels.items()):
        if PLAIN_KEY.fullmatch(key):
            item, values[f"label_{number}"] = reader.json_item("labels", f"label_{number}", key)
            conditions.append(f"{item} IS NOT NULL" if value is None else f"{item} = :held_{number}")
            if value is not None:
                values[f"held_{number}"] = value
    return " AND ".join(conditions), values


def has_labels(held: Mapping[str, str], wanted: Labels) -> bool:
    return all(key in held and value in (None, held[key]) for key, value in wanted.items())


def line(reader: Reader, image_id: str) -> list[ImageRecord]:
    """An image, then its ancestors, parent first, up to the root."""
    return with_blobs(reader, reader.rows(LINE.format(columns="images.*"), id=image_id))


def line_ids(reader: Reader, image_id: str) -> list[str]:
    """The IDs of an image and its ancestors, in the same order."""
    return [row.id for row in reader.stream(LINE.format(columns="images.id"), id=image_id)]


def below(reader: Reader, image_ids: Collection[str]) -> dict[str, str | None]:
    """ID -> parent of these images and all their descendants, also removed ones."""
    return {row.id: row.parent for row in reader.rows_for(BELOW, "id", image_ids)}


def _candidates(reader: Reader, condition: Condition) -> list[Candidate]:
    where, values = both(PRESENT, condition)
    rows = reader.stream(f"SELECT id, name, version, digest FROM images WHERE {where} ORDER BY serial DESC", **values)
    return [Candidate(row.id, row.name, row.version, row.digest) for row in rows]


def _parts(reader: Reader, table: str, owner: str, ids: Collection[str]) -> dict[str, list[Any]]:
    """The rows of a table that belong to each of these records, in order."""
    found: dict[str, list[Any]] = {}
    for row in reader.rows_for(f"SELECT * FROM {table} WHERE {{where}} ORDER BY {owner}, position", owner, ids):
        found.setdefault(getattr(row, owner), []).append(row)
    return found
