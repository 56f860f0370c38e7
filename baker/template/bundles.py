"""Finds the files and the bundles that a template names.

A bundle is a directory with a provisioner.yaml. `uses: NAME` looks in `provisioners/` beside the file that names it, then in the
`provisioners/` of each directory above, up to the root of the git work tree (outside one: one directory up), then in the directories
that the caller added, then among installed Python packages (entry-point group `baker.bundles`, whose entries are a path or a
package). `uses: ./path` names the directory itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from baker.template.git import project_root
from baker.template.yaml_document import Document, Item, Place, Problems, parse, quote, read, suggest

DIRECTORY, MANIFEST, GROUP = "provisioners", "provisioner.yaml", "baker.bundles"


class Files:
    """Reads the YAML files that a template names, each once."""

    def __init__(self, problems: Problems, search: Sequence[Path] = ()) -> None:
        self.problems = problems
        self.search = tuple(search)
        self.contents: dict[str, bytes] = {}  # every file that was read
        self._read: dict[Path, Item | None] = {}
        self._documents: dict[tuple[Path, bool], Document | None] = {}

    @property
    def seen(self) -> tuple[Path, ...]:
        return tuple(self._read)

    def open(self, path: Path, shown: str) -> Item | None:
        """Return the tree of a file, or None after reporting why it has none."""
        key = path.resolve()
        if key not in self._read:
            document = self.read(path, shown)
            self._read[key] = parse(document, self.problems) if document else None
        return self._read[key]

    def read(self, path: Path, shown: str, *, private: bool = False) -> Document | None:
        """Return the text of a file, or None after reporting why it cannot be read. Each file is read once, because it may be a pipe."""
        key = (path.resolve(), private)
        if key not in self._documents:
            self._documents[key] = read(path, shown, self.problems, private=private)
        document = self._documents[key]
        if document is not None:
            self.contents.setdefault(str(path), document.data)
        return document

    def bundle(self, name: str, base_dir: Path, place: Place) -> Path | None:
        """Return the manifest of the bundle that `uses: name` means, or None after reporting that there is none."""
        if "/" in name or name in (".", ".."):
            path = base_dir / name / MANIFEST
            if not path.is_file():
                self.problems.add(
                    place,
                    f"there is no {MANIFEST} in {quote(name)}",
                    "a bundle is a directory with that file",
                    code="template.no-such-bundle",
                )
                return None
            return path
        directories = [*self._places(base_dir), *self.search]
        for directory in directories:
            if (directory / name / MANIFEST).is_file():
                return directory / name / MANIFEST
        installed = _installed()
        found: Path | None = installed[name]() if name in installed else None
        if found is not None and (found / MANIFEST).is_file():
            return found / MANIFEST
        known = {each.parent.name for directory in directories for each in directory.glob(f"*/{MANIFEST}")} | set(installed)
        looked = (
            f"looked in {', '.join(shown_path(each, place) for each in directories if each.is_dir()) or 'provisioners/ here and above'}"
        )
        self.problems.add(place, f"there is no bundle {quote(name)}", suggest(name, list(known)) or looked, code="template.no-such-bundle")
        return None

    def _places(self, base_dir: Path) -> Iterator[Path]:
        start = base_dir.resolve()
        root = project_root(start) or start.parent
        for each in (start, *start.parents):
            yield each / DIRECTORY
            if each == root:
                break


def _installed() -> dict[str, Any]:
    """Bundle name -> function that returns its directory, for the bundles of installed packages."""
    from importlib.metadata import entry_points

    def directory(entry: Any) -> Path | None:
        try:
            value = entry.load()
            return Path(next(iter(value.__path__)) if hasattr(value, "__path__") else value)
        except Exception:  # a broken package, whatever it raises, has no bundle
            return None

    return {entry.name: lambda entry=entry: directory(entry) for entry in entry_points(group=GROUP)}


def shown_path(path: Path, place: Place) -> str:
    """The name in messages of a file that the document of `place` names: relative if the user gave the document's path as relative."""
    document = place.document
    if Path(document.shown).is_absolute():
        return os.path.normpath(path)
    if path.is_absolute() or document.path.is_absolute():
        relative = os.path.relpath(path, document.path.parent)
        return os.path.normpath(Path(document.shown).parent / relative)
    return os.path.normpath(path)
