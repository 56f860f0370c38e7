"""YAML text -> a tree of values that know where they stand.

One pass over the parser's events makes the tree, so that aliases never expand (a "billion laughs" costs nothing), and duplicate
keys, tags, anchors and further documents are seen where they are. Plain scalars are read by the rules below, which are narrower
than YAML 1.1: no dates, no base-60 numbers, and 0644 stays the text "0644".
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from baker.core.errors import Problem
from baker.core.secrets import Secrets

LARGEST = 1 << 20  # bytes of one YAML file
DEEPEST = 40  # levels of lists and mappings
WIDEST = 160  # characters of a line that is shown
_BREAK = re.compile(r"\r\n|[\r\n\x85\u2028\u2029]")
_CONTROL = r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"  # compiled only when something is wrong: it takes long
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")
_BASED = re.compile(r"0x[0-9a-fA-F]{1,15}|0o[0-7]{1,20}")
_FLOAT = re.compile(r"[-+]?([0-9]{1,30}\.[0-9]{0,30}|\.[0-9]{1,30})([eE][-+]?[0-9]{1,3})?")
_WORDS: Mapping[str, bool | None] = {
    spelling: value
    for value, words in ((True, ("true", "yes", "on")), (False, ("false", "no", "off")), (None, ("null",)))
    for word in words
    for spelling in (word, word.title(), word.upper())
} | {"": None, "~": None}


@dataclass(frozen=True, eq=False)
class Document:
    """One YAML file as it was read. `shown` is its name in messages; `private` ones (variable files) never show a line."""

    path: Path
    shown: str
    text: str = field(repr=False)
    private: bool = False
    data: bytes = field(default=b"", repr=False)  # the file as it is, where `text` came from one

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(match.end() for match in _BREAK.finditer(self.text))]

    def at(self, index: int) -> Place:
        """The place of the character `index`."""
        line = bisect.bisect_right(self._starts, index) - 1
        return Place(self, line + 1, index - self._starts[line] + 1)

    def line(self, number: int) -> str:
        """Line `number` (from 1) fit to be shown: no tabs, no control characters; "" where there is nothing to see."""
        if self.private or not 0 < number <= len(self._starts):
            return ""
        end = self._starts[number] if number < len(self._starts) else len(self.text)
        text = re.sub(_CONTROL, "?", self.text[self._starts[number - 1] : end].replace("\t", " ")).rstrip()
        return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."


@dataclass(frozen=True)
class Place:
    """A character of a document, counted from 1. Line 0: the whole document."""

    document: Document
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.document.shown}:{self.line}:{self.column}" if self.line else self.document.shown


@dataclass(eq=False)
class Item:
    """A value with its place: a scalar, a list of items, or a mapping of items (its keys' places in `keys`)."""

    value: Any
    place: Place
    keys: dict[str, Place] = field(default_factory=dict)
    plain: bool = False  # a scalar without quotes
    source: str = ""  # a scalar as the user typed it, before interpolation
    start: int = 0  # the scalar's characters in the document's text
    end: int = 0
    broken: bool = False  # a problem has been reported here: report no other about its value

    def data(self) -> Any:
        """The values alone: what a model validates."""
        if isinstance(self.value, dict):
            return {key: item.data() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.data() for item in self.value]
        return self.value

    def walk(self) -> Iterator[Item]:
        """This item and all below it."""
        yield self
        children = self.value.values() if isinstance(self.value, dict) else self.value if isinstance(self.value, list) else ()
        for child in children:
            yield from child.walk()

    def get(self, key: str) -> Item | None:
        """The item below `key` of a mapping, if there is one."""
        return self.value.get(key) if isinstance(self.value, dict) else None

    def without(self, *keys: str) -> Item:
        """This mapping without `keys`."""
        kept = {key: item for key, item in self.value.items() if key not in keys}
        return Item(kept, self.place, {key: place for key, place in self.keys.items() if key in kept}, broken=self.broken)


def wrap(value: Any, place: Place) -> Item:
    """A plain value as items that all stand at `place`."""
    if isinstance(value, Mapping):
        return Item({str(key): wrap(each, place) for key, each in value.items()}, place, {str(key): place for key in value})
    if isinstance(value, list | tuple):
        return Item([wrap(each, place) for each in value], place)
    return Item(value, place, source=value if isinstance(value, str) else "")


class Problems:
    """Collects everything that is wrong. No sensitive value gets into a problem's text."""

    def __init__(self) -> None:
        self._found: dict[Problem, None] = {}
        self._secret: dict[str, str] = {}

    def hide(self, name: str, value: str) -> None:
        """From now on, and in what was found before, `value` shows as ***."""
        if value:
            self._secret[f"{name} {len(self._secret)}"] = value

    def add(self, place: Place, message: str, hint: str = "", *, code: str = "template.invalid") -> None:
        """Something is wrong at `place`."""
        snippet = place.document.line(place.line) if place.column <= WIDEST else ""
        self._found[Problem(place.document.shown, place.line, place.column, message, hint, snippet, code)] = None

    def __bool__(self) -> bool:
        return bool(self._found)

    def list(self) -> list[Problem]:
        """All problems, in file order."""
        mask = Secrets(self._secret).mask if self._secret else str
        return sorted({Problem(p.file, p.line, p.column, mask(p.message), mask(p.hint), mask(p.snippet), p.code) for p in self._found})


def quote(text: object) -> str:
    """A value as it may stand in a message: short, in quotes, nothing that moves a terminal's cursor."""
    shown = re.sub(_CONTROL, "?", " ".join(str(text).split()))
    return f'"{shown if len(shown) <= 60 else shown[:57] + "..."}"'


def suggest(word: str, known: Iterator[str] | list[str] | tuple[str, ...]) -> str:
    """ "did you mean X?" when a known name is close to `word`, else the known names."""
    import difflib

    names = sorted(known)
    close = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"known: {', '.join(names)}" if names and sum(map(len, names)) < 400 else ""


def read(path: Path, shown: str, problems: Problems, *, private: bool = False) -> Document | None:
    """The file's text as a Document, or None after reporting why not. Of a larger one no more is read than tells that it is."""
    nowhere = Place(Document(path, shown, "", private), 0, 0)
    try:
        if path.is_dir():
            problems.add(nowhere, "this is a directory, not a file")
            return None
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)  # of a pipe or a device the size is not known before
        if len(data) > LARGEST:
            size = f"{path.stat().st_size / 1e6:.1f} MB" if path.is_file() else "no end in sight"
            problems.add(nowhere, f"the file has {size}, and 1 MiB is the most", "put large content into files of its own")
            return None
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        problems.add(nowhere, "no such file")
    except OSError as error:
        problems.add(nowhere, f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8-sig", "replace")
        place = Document(path, shown, before, private).at(len(before))
        problems.add(place, f"byte 0x{error.object[error.start]:02x} is not UTF-8", "save the file as UTF-8")
    else:
        return Document(path, shown, text, private, data)
    return None


def parse(document: Document, problems: Problems) -> Item | None:
    """The document's tree; None when it has no usable one. Everything wrong with it as YAML is reported."""
    import yaml

    loader: Any = None
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(document.text)
        return _Builder(document, problems, yaml).build(loader)
    except yaml.reader.ReaderError:
        bad = re.search(_CONTROL, document.text)
        place = document.at(bad.start()) if bad else Place(document, 0, 0)
        what = f"the character U+{ord(bad[0]):04X}" if bad else "a character here"
        problems.add(place, f"{what} cannot stand in YAML", 'write it as "\\x.." in quotes')
    except yaml.MarkedYAMLError as error:
        _syntax(error, document, problems)
    except _TooDeep as error:
        problems.add(error.place, f"nested too deeply: {DEEPEST} levels at most")
    finally:
        if loader is not None:
            loader.dispose()
    return None


def _syntax(error: Any, document: Document, problems: Problems) -> None:
    """Report what the parser says, in words that help."""
    mark = error.problem_mark or error.context_mark
    place = document.at(min(mark.index, len(document.text)))
    line = document.text[document._starts[place.line - 1] :].split("\n", 1)[0]
    indent = line[: len(line) - len(line.lstrip())]
    if "\t" in indent:
        problems.add(Place(document, place.line, indent.index("\t") + 1), "a tab in the indentation", "indent with spaces")
    elif "${{" in line and error.context and "flow" in error.context:
        column = line.index("${{") + 1
        problems.add(Place(document, place.line, column), "an expression inside {...} or [...] needs quotes", 'write "${{ ... }}"')
    elif "mapping values" in str(error.problem):
        problems.add(place, "not YAML: a second `:` or wrong indentation", "put a value that has `: ` in it in quotes")
    elif "cannot start any token" in str(error.problem):
        character = document.text[mark.index : mark.index + 1]
        problems.add(place, f"not YAML: a value cannot start with {character}", "put the value in quotes")
    else:
        start = document.at(error.context_mark.index) if error.context_mark else place
        context = f" {error.context}" if error.context else ""
        where = f"it starts in line {start.line}" if start.line != place.line else ""
        shown = start if "end of stream" in str(error.problem) else place
        problems.add(shown, f"not YAML: {error.problem}{context}", where if shown is place else "")


class _TooDeep(Exception):
    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place


class _Builder:
    """Makes the tree of one document out of parser events."""

    def __init__(self, document: Document, problems: Problems, yaml: Any) -> None:
        self.document = document
        self.problems = problems
        self.yaml = yaml
        self.anchors: set[str] = set()

    def build(self, loader: Any) -> Item | None:
        root: Item | None = None
        events = iter(loader.get_event, None)
        for event in events:
            if isinstance(event, self.yaml.DocumentStartEvent):
                if root is not None:
                    self.problems.add(self.place(event), "a second document starts here", "one file holds one document: split it at ---")
                    break
                root = self.node(next(events), events, 0)
        if root is None or (root.value is None and root.plain and not root.source):
            self.problems.add(Place(self.document, 0, 0), "the file is empty")
            return None
        return root

    def place(self, event: Any) -> Place:
        return Place(self.document, event.start_mark.line + 1, event.start_mark.column + 1)

    def node(self, event: Any, events: Iterator[Any], depth: int) -> Item:
        place = self.place(event)
        refused = self.refuse(event, place)
        if isinstance(event, self.yaml.AliasEvent):
            return Item(None, place, broken=True)
        item = self.content(event, events, depth, place)
        item.broken = refused
        return item

    def content(self, event: Any, events: Iterator[Any], depth: int, place: Place) -> Item:
        if isinstance(event, self.yaml.ScalarEvent):
            return self.scalar(event, place)
        if depth >= DEEPEST:
            raise _TooDeep(place)
        if isinstance(event, self.yaml.SequenceStartEvent):
            return Item([self.node(each, events, depth + 1) for each in self.until(events, self.yaml.SequenceEndEvent)], place)
        return self.mapping(events, place, depth)

    @staticmethod
    def until(events: Iterator[Any], last: type) -> Iterator[Any]:
        for event in events:
            if isinstance(event, last):
                return
            yield event

    def refuse(self, event: Any, place: Place) -> bool:
        """Report what YAML has and templates do without; whether there was any."""
        anchor = getattr(event, "anchor", None)
        if isinstance(event, self.yaml.AliasEvent):
            if anchor not in self.anchors:
                self.problems.add(place, f"the alias *{anchor} has no anchor", "aliases are not used here: write an include or a bundle")
        elif anchor:
            self.anchors.add(anchor)
            self.problems.add(place, f"the anchor &{anchor} is not allowed", "to write something once, use an include or a bundle")
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            self.problems.add(place, f"the tag {tag.replace('tag:yaml.org,2002:', '!!')} is not allowed", "write the plain value")
        return bool(anchor) or tag not in (None, "!")

    def scalar(self, event: Any, place: Place) -> Item:
        text, plain = event.value, event.style is None or event.style == ""
        value = resolve(text) if plain else text
        return Item(value, place, plain=plain, source=text, start=event.start_mark.index, end=event.end_mark.index)

    def mapping(self, events: Iterator[Any], place: Place, depth: int) -> Item:
        found = Item({}, place)
        for event in self.until(events, self.yaml.MappingEndEvent):
            key = self.node(event, events, depth + 1)
            value = self.node(next(events), events, depth + 1)
            name = key.source
            if isinstance(key.value, dict | list):
                self.problems.add(key.place, "a key must be a word", "text that starts with { or [ needs quotes")
            elif name == "<<" and key.plain:
                self.problems.add(key.place, "the merge key << is not allowed", "to write something once, use an include or a bundle")
            elif name in found.value:
                first = found.keys[name].line
                self.problems.add(key.place, f"the key {quote(name)} is here twice", f"the first is in line {first}")
            elif "${{" in name:
                self.problems.add(key.place, "no expressions in keys", "an expression may stand in a value")
            elif not key.broken:
                found.value[name] = value
                found.keys[name] = key.place
        return found


class _Integer(int):
    """A number that is written in another way than Python would: as text it is what the user typed."""

    text = ""

    def __str__(self) -> str:
        return self.text


class _Number(float):
    """The same for 1.10, which is not 1.1 where somebody takes it as text."""

    text = ""

    def __str__(self) -> str:
        return self.text


def resolve(text: str) -> Any:
    """The value of a scalar without quotes."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text) or _BASED.fullmatch(text):
        return _as_typed(_Integer(int(text, 0 if text[:2] in ("0x", "0o") else 10)), text)
    if _FLOAT.fullmatch(text):
        return _as_typed(_Number(text), text)
    return text


def _as_typed(number: Any, text: str) -> Any:
    """The plain number where it reads the same, else the one that keeps its text."""
    number.text = text
    plain = int(number) if isinstance(number, int) else float(number)
    return plain if repr(plain) == text else number
