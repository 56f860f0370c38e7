"""Parses YAML text to a tree of values, each with its place in the text.

The tree is built in one pass over the parser's events. So aliases never expand (a "billion laughs" attack costs nothing), and
duplicate keys, tags, anchors and further documents are reported where they are. The rules for plain scalars are narrower than those
of YAML 1.1: there are no dates and no base-60 numbers, and 0644 stays the text "0644".
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from baker.core.errors import Problem
from baker.core.secrets import Secrets

LARGEST = 1 << 20  # bytes that one YAML file may have
DEEPEST = 40  # levels of lists and mappings that may be nested
WIDEST = 160  # characters of a line that messages show
ONCE = "to avoid repetition, use an include or a bundle"
_BREAK = re.compile(r"\r\n|[\r\n\x85\u2028\u2029]")
_CONTROL = r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"  # not compiled at import, which takes long
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
    """One YAML file as it was read. `shown` is its name in messages. Messages show no line of a `private` one (a variable file)."""

    path: Path
    shown: str
    text: str = field(repr=False)
    private: bool = False
    data: bytes = field(default=b"", repr=False)  # the bytes of the file, if `text` is from a file

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(match.end() for match in _BREAK.finditer(self.text))]

    def at(self, index: int) -> Place:
        """The place of the character `index`."""
        line = bisect.bisect_right(self._starts, index) - 1
        return Place(self, line + 1, index - self._starts[line] + 1)

    def line(self, number: int) -> str:
        """Line `number` (from 1) for messages, without tabs and control characters; "" for a line that must not or cannot be shown."""
        if self.private or not 0 < number <= len(self._starts):
            return ""
        end = self._starts[number] if number < len(self._starts) else len(self.text)
        text = re.sub(_CONTROL, "?", self.text[self._starts[number - 1] : end].replace("\t", " ")).rstrip()
        return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."


@dataclass(frozen=True)
class Place:
    """The position of a character in a document, counted from 1. Line 0 stands for the whole document."""

    document: Document
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.document.shown}:{self.line}:{self.column}" if self.line else self.document.shown


@dataclass(eq=False)
class Item:
    """A value with its place: a scalar, a list of items, or a mapping of items (`keys` has the places of its keys)."""

    value: Any
    place: Place
    keys: dict[str, Place] = field(default_factory=dict)
    plain: bool = False  # a scalar without quotes
    source: str = ""  # a scalar as the user typed it, before interpolation
    start: int = 0  # the scalar's characters in the document's text
    end: int = 0
    broken: bool = False  # a problem of it has been reported: report no other about its value

    def data(self) -> Any:
        """The values without their places, for a model to validate."""
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
    """A plain value as items that all have the same `place`."""
    if isinstance(value, Mapping):
        return Item({str(key): wrap(each, place) for key, each in value.items()}, place, {str(key): place for key in value})
    if isinstance(value, list | tuple):
        return Item([wrap(each, place) for each in value], place)
    return Item(value, place, source=value if isinstance(value, str) else "")


class Problems:
    """Collects problems. No sensitive value gets into the text of one."""

    def __init__(self) -> None:
        self._found: dict[Problem, None] = {}
        self._secret: dict[str, str] = {}

    def hide(self, name: str, value: str) -> None:
        """Show `value` as *** in every problem, those found before included."""
        if value:
            self._secret[f"{name} {len(self._secret)}"] = value

    def add(self, place: Place, message: str, hint: str = "", *, code: str) -> None:
        """Add a problem at `place`."""
        snippet = place.document.line(place.line) if place.column <= WIDEST else ""
        self._found[Problem(place.document.shown, place.line, place.column, message, hint, snippet, code=code)] = None

    def __bool__(self) -> bool:
        return bool(self._found)

    def list(self) -> list[Problem]:
        """All problems, in file order."""
        mask = Secrets(self._secret).mask if self._secret else str
        return sorted({replace(p, message=mask(p.message), hint=mask(p.hint), snippet=mask(p.snippet)) for p in self._found})


def quote(text: object) -> str:
    """A value for a message: short, in quotes, and without characters that move a terminal's cursor."""
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
    """Return the file's text as a Document, or None after reporting why it cannot be used. Never reads much more than LARGEST bytes."""
    nowhere = Place(Document(path, shown, "", private), 0, 0)
    try:
        if path.is_dir():
            problems.add(nowhere, "this is a directory, not a file", code="template.not-a-file")
            return None
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)  # the size of a pipe or a device is not known before
        if len(data) > LARGEST:
            size = f"{path.stat().st_size / 1e6:.1f} MB" if path.is_file() else "over 1 MiB"
            problems.add(
                nowhere,
                f"the file has {size}, but at most 1 MiB is allowed",
                "move large content to other files",
                code="template.file-too-large",
            )
            return None
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        problems.add(nowhere, "no such file", code="template.missing-file")
    except OSError as error:
        problems.add(nowhere, f"cannot be read: {error.strerror}", code="template.unreadable-file")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8-sig", "replace")
        place = Document(path, shown, before, private).at(len(before))
        problems.add(place, f"byte 0x{error.object[error.start]:02x} is not UTF-8", "save the file as UTF-8", code="template.not-utf-8")
    else:
        return Document(path, shown, text, private, data)
    return None


def parse(document: Document, problems: Problems) -> Item | None:
    """Return the document's tree, or None when it has no usable one. Reports everything that is wrong with it as YAML."""
    import yaml

    loader: Any = None
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(document.text)
        return _Builder(document, problems, yaml).build(loader)
    except yaml.reader.ReaderError:
        bad = re.search(_CONTROL, document.text)
        place = document.at(bad.start()) if bad else Place(document, 0, 0)
        what = f"the character U+{ord(bad[0]):04X}" if bad else "a character here"
        problems.add(place, f"{what} is not allowed in YAML", 'write it as "\\x.." in quotes', code="template.bad-character")
    except yaml.MarkedYAMLError as error:
        _syntax(error, document, problems)
    except _TooDeep as error:
        problems.add(error.place, f"nested too deeply: at most {DEEPEST} levels are allowed", code="template.too-deep")
    finally:
        if loader is not None:
            loader.dispose()
    return None


def _syntax(error: Any, document: Document, problems: Problems) -> None:
    """Report a syntax error of the parser, with a hint for the common mistakes."""
    mark = error.problem_mark or error.context_mark
    place = document.at(min(mark.index, len(document.text)))
    line = document.text[document._starts[place.line - 1] :].split("\n", 1)[0]
    indent = line[: len(line) - len(line.lstrip())]
    if "\t" in indent:
        tab = Place(document, place.line, indent.index("\t") + 1)
        problems.add(tab, "there is a tab in the indentation", "indent with spaces", code="template.tab-indentation")
    elif "${{" in line and error.context and "flow" in error.context:
        expression = Place(document, place.line, line.index("${{") + 1)
        message = "an expression inside {...} or [...] needs quotes"
        problems.add(expression, message, 'write "${{ ... }}"', code="template.unquoted-expression")
    elif "mapping values" in str(error.problem):
        problems.add(
            place, "not YAML: a second `:` or wrong indentation", "put a value that has `: ` in it in quotes", code="template.yaml-syntax"
        )
    elif "cannot start any token" in str(error.problem):
        character = document.text[mark.index : mark.index + 1]
        problems.add(place, f"not YAML: a value cannot start with {character}", "put the value in quotes", code="template.yaml-syntax")
    else:
        start = document.at(error.context_mark.index) if error.context_mark else place
        context = f" {error.context}" if error.context else ""
        where = f"it starts in line {start.line}" if start.line != place.line else ""
        shown = start if "end of stream" in str(error.problem) else place
        problems.add(shown, f"not YAML: {error.problem}{context}", where if shown is place else "", code="template.yaml-syntax")


class _TooDeep(Exception):
    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place


class _Builder:
    """Builds the tree of one document from parser events."""

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
                    message, hint = "a second document starts here", "a file has one document: split it at ---"
                    self.problems.add(self.place(event), message, hint, code="template.several-documents")
                    break
                root = self.node(next(events), events, 0)
        if root is None or (root.value is None and root.plain and not root.source):
            self.problems.add(Place(self.document, 0, 0), "the file is empty", code="template.empty-file")
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
        """Report aliases, anchors and tags, which templates must not use. Returns whether a value has to be ignored because of one."""
        anchor = getattr(event, "anchor", None)
        if isinstance(event, self.yaml.AliasEvent):
            if anchor not in self.anchors:
                hint = "aliases are not allowed: use an include or a bundle"
                self.problems.add(place, f"the alias *{anchor} has no anchor", hint, code="template.yaml-alias")
        elif anchor:
            self.anchors.add(anchor)
            self.problems.add(place, f"the anchor &{anchor} is not allowed", ONCE, code="template.yaml-alias")
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            message = f"the tag {tag.replace('tag:yaml.org,2002:', '!!')} is not allowed"
            self.problems.add(place, message, "write the plain value", code="template.yaml-tag")
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
                self.problems.add(key.place, "a key must be text", "text that starts with { or [ needs quotes", code="template.bad-key")
            elif name == "<<" and key.plain:
                self.problems.add(key.place, "the merge key << is not allowed", ONCE, code="template.yaml-alias")
            elif name in found.value:
                hint = f"the first is in line {found.keys[name].line}"
                self.problems.add(key.place, f"the key {quote(name)} is given twice", hint, code="template.duplicate-key")
            elif "${{" in name:
                message, hint = "an expression is not allowed in a key", "use expressions in values only"
                self.problems.add(key.place, message, hint, code="template.expression-in-key")
            elif not key.broken:
                found.value[name] = value
                found.keys[name] = key.place
        return found


class _Integer(int):
    """An integer that is written in another way than Python does. `str` returns it as the user typed it."""

    text = ""

    def __str__(self) -> str:
        return self.text


class _Number(float):
    """The same for other numbers: 1.10 must not become 1.1 where it is used as text."""

    text = ""

    def __str__(self) -> str:
        return self.text


def resolve(text: str) -> Any:
    """The value of a scalar without quotes, by the rules in the module's docstring."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text) or _BASED.fullmatch(text):
        return _as_typed(_Integer(int(text, 0 if text[:2] in ("0x", "0o") else 10)), text)
    if _FLOAT.fullmatch(text):
        return _as_typed(_Number(text), text)
    return text


def _as_typed(number: Any, text: str) -> Any:
    """The plain number if it reads the same, else the one that keeps its text."""
    number.text = text
    plain = int(number) if isinstance(number, int) else float(number)
    return plain if repr(plain) == text else number
