"""Questions that must be fast in a catalog of 100,000 images: what a reference may mean, what is made on what, which has a label.

Only the rows that can be answers are read, by index where there is one. Whoever asks decides among them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, func, literal, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from baker.catalog import tables
from baker.catalog.reference import HEX, Candidate

Labels = Mapping[str, str | None]  # None: any value
PLAIN_KEY = re.compile(r"[A-Za-z0-9_./-]+")  # a label's name that every database's JSON paths can have
AT_ONCE = 500  # values in one query: databases limit how many there may be
T = TypeVar("T")


def candidates(session: Session, text: str) -> list[Candidate]:
    """The images that a reference can mean, last made first; where none fits, one for each name, to guess what was meant."""
    name, at, wanted = text.partition("@")
    image = tables.Image
    if text.startswith("sha256:"):
        return _named(session, begins(image.digest, text)) if text != "sha256:" else []
    exact = _named(session, image.name == name, image.version == wanted) if at else []
    found = exact or _named(session, image.name == name)
    if not found and not at and HEX.fullmatch(text):
        found = _named(session, begins(image.id, text))
    return found or [Candidate("", each, "", "") for each in names(session)]


def names(session: Session, *, removed: bool = False) -> list[str]:
    """The names of all images, that of the last made first."""
    query = select(tables.Image.name).group_by(tables.Image.name).order_by(func.max(tables.Image.serial).desc())
    return list(session.scalars(query if removed else query.where(tables.Image.removed.is_(None))))


def begins(column: InstrumentedAttribute[str], text: str) -> ColumnElement[bool]:
    """Whether a column of hexadecimal digits begins so, for the index: LIKE would read every row."""
    return (column >= text) & (column < text + "z")


def named_like(session: Session, query: Select[Any], pattern: str, *, removed: bool) -> Select[Any]:
    """`query` for images whose name fits a shell pattern. The names are compared one by one, the images are not."""
    known = names(session, removed=removed)
    fitting = [name for name in known if fnmatchcase(name, pattern)]
    if len(fitting) == len(known) or len(fitting) > AT_ONCE:
        return query  # too many to name: whoever asks compares
    return query.where(tables.Image.name.in_(fitting))


def labelled(query: Select[Any], labels: Labels) -> Select[Any]:
    """`query` for images that can have these labels; one with an odd name is left to whoever asks."""
    for key, value in labels.items():
        if PLAIN_KEY.fullmatch(key):
            held = tables.Image.labels[key].as_string()
            query = query.where(held.is_not(None) if value is None else held == value)
    return query


def has_labels(held: Mapping[str, str], wanted: Labels) -> bool:
    return all(key in held and value in (None, held[key]) for key, value in wanted.items())


def line(session: Session, image_id: str) -> list[tables.Image]:
    """An image, then what it is made on, up to the root, in one query."""
    image = tables.Image
    above = select(image.id, image.parent, literal(0).label("depth")).where(image.id == image_id).cte("above", recursive=True)
    above = above.union_all(select(image.id, image.parent, above.c.depth + 1).where(image.id == above.c.parent))
    return list(session.scalars(select(image).join(above, image.id == above.c.id).order_by(above.c.depth)))


def below(session: Session, image_ids: Collection[str]) -> dict[str, str | None]:
    """These images and all that are made on them, removed ones too: id -> parent."""
    image = tables.Image
    found: dict[str, str | None] = {}
    for ids in batches(sorted(image_ids)):
        line = select(image.id, image.parent).where(image.id.in_(ids)).cte("below", recursive=True)
        line = line.union(select(image.id, image.parent).where(image.parent == line.c.id))
        found |= {row.id: row.parent for row in session.execute(select(line.c.id, line.c.parent))}
    return found


def batches(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), AT_ONCE):
        yield values[start : start + AT_ONCE]


def _named(session: Session, *conditions: ColumnElement[bool]) -> list[Candidate]:
    image = tables.Image
    query = (
        select(image.id, image.name, image.version, image.digest).where(image.removed.is_(None), *conditions).order_by(image.serial.desc())
    )
    return [Candidate(row.id, row.name, row.version, row.digest) for row in session.execute(query)]
