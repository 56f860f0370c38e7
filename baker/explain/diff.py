"""The difference between two file trees as a person means it: files, packages, services, users, and where the bytes went."""

from __future__ import annotations

import difflib
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from baker.artifacts.trees import Difference, compare_trees
from baker.core.model import FileEntry, Package

Read = Callable[[str], bytes | None]
LARGEST_TEXT = 64 << 10  # bytes of a file whose lines are compared
LONGEST_DIFF = 200  # lines shown of one file
UNITS = ("/etc/systemd/system/", "/usr/lib/systemd/system/", "/lib/systemd/system/")
DEPTH = 2  # directories by which sizes are summed


@dataclass(frozen=True)
class Tree:
    """One side. `read` gives a file's bytes, None for none (or when nobody can read them any more). `unread` says why packages may be
    missing from `packages`."""

    title: str
    entries: Sequence[FileEntry]
    packages: Sequence[Package]
    read: Read
    unread: Sequence[str] = ()


@dataclass(frozen=True)
class FileChange:
    """One path. `diff`: unified lines of a small text file."""

    path: str
    what: tuple[str, ...]  # "added", "removed", or what differs: "content", "mode", "owner", "time", ...
    before: FileEntry | None
    after: FileEntry | None
    diff: tuple[str, ...] = ()


@dataclass(frozen=True)
class Named:
    """Something that is there, gone, or other: a package, a service, a user. `before` and `after` are "" where it is not."""

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class Comparison:
    """`sizes`: bytes more (or fewer) by directory, the largest first. `notes`: what could not be compared, and why."""

    before: str
    after: str
    files: tuple[FileChange, ...] = ()
    packages: tuple[Named, ...] = ()
    services: tuple[Named, ...] = ()
    users: tuple[Named, ...] = ()
    groups: tuple[Named, ...] = ()
    sizes: tuple[tuple[str, int], ...] = field(default_factory=tuple)
    notes: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        return not (self.files or self.packages)


def compare(before: Tree, after: Tree, *, times: bool = False) -> Comparison:
    """What differs. A file of which only the time differs is left out, unless `times`."""
    found = [each for each in compare_trees(before.entries, after.entries) if times or each.what != ("time",)]
    return Comparison(
        before.title,
        after.title,
        tuple(_file(each, before.read, after.read) for each in found),
        tuple(_named(_packages(before.packages), _packages(after.packages))),
        tuple(_named(_services(before.entries), _services(after.entries))),
        tuple(_users(before, after)),
        tuple(_accounts("/etc/group", before, after, _group)),
        tuple(_sizes(found)),
        tuple(f"{tree.title}: packages may be missing from its list: {reason}" for tree in (before, after) for reason in tree.unread),
    )


def _file(difference: Difference, old: Read, new: Read) -> FileChange:
    lines: tuple[str, ...] = ()
    if "content" in difference.what and difference.path not in SECRET:
        before, after = old(difference.path), new(difference.path)
        if before is not None and after is not None:
            lines = tuple(_lines(difference.path, before, after))
    return FileChange(difference.path, difference.what, difference.before, difference.after, lines)


ACCOUNTS = ("/etc/shadow", "/etc/gshadow", "/etc/passwd", "/etc/group")
SECRET = frozenset([*ACCOUNTS, *(f"{path}-" for path in ACCOUNTS)])  # nobody needs to see a hash to know that it changed: users tell that


def _lines(path: str, before: bytes, after: bytes) -> Iterator[str]:
    old, new = _text(before), _text(after)
    if old is None or new is None:
        return
    for number, line in enumerate(difflib.unified_diff(old, new, f"a{path}", f"b{path}", lineterm="")):
        if number == LONGEST_DIFF:
            yield "..."
            return
        yield line


def _text(data: bytes) -> list[str] | None:
    """The lines of a small text; None for what is large or no text."""
    if len(data) > LARGEST_TEXT or b"\0" in data:
        return None
    try:
        return data.decode().splitlines()
    except UnicodeDecodeError:
        return None


def _named(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Named]:
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield Named(name, before.get(name, ""), after.get(name, ""))


def _packages(packages: Iterable[Package]) -> dict[str, str]:
    """Name to versions; several (kernels, other architectures) are one text."""
    found: dict[str, list[str]] = {}
    for each in packages:
        found.setdefault(each.name, []).append(each.version)
    return {name: ", ".join(sorted(versions)) for name, versions in found.items()}


def _services(entries: Iterable[FileEntry]) -> dict[str, str]:
    """Units of systemd, and whether they are enabled (a link from a .wants or .requires directory) or masked (a link to /dev/null)."""
    installed: set[str] = set()
    enabled: set[str] = set()
    masked: set[str] = set()
    for entry in entries:
        if not entry.path.startswith(UNITS):
            continue
        directory, _, name = entry.path.rpartition("/")
        if directory.endswith((".wants", ".requires")):
            enabled.add(name)
        elif stat.S_ISLNK(entry.mode) and entry.target == "/dev/null":
            masked.add(name)
        elif name.endswith((".service", ".socket", ".timer", ".mount", ".path")) and not stat.S_ISDIR(entry.mode):
            installed.add(name)
    return {name: "masked" if name in masked else "enabled" if name in enabled else "installed" for name in installed | enabled | masked}


def _accounts(path: str, before: Tree, after: Tree, read: Callable[[list[str]], str]) -> Iterator[Named]:
    yield from _named(*({name: read(fields) for name, fields in _lines_of(tree, path).items()} for tree in (before, after)))


def _lines_of(tree: Tree, path: str) -> dict[str, list[str]]:
    """The lines of a file like passwd(5), by name."""
    text = (tree.read(path) or b"").decode("utf-8", "replace")
    return {line.partition(":")[0]: line.split(":") for line in text.splitlines() if ":" in line}


def _users(before: Tree, after: Tree) -> Iterator[Named]:
    """Users; that a password is another one is said, and nothing more of it."""
    old, new = ({name: _user(fields) for name, fields in _lines_of(tree, "/etc/passwd").items()} for tree in (before, after))
    hashes = [
        {path: {name: fields[1] for name, fields in _lines_of(tree, path).items()} for path in ("/etc/passwd", "/etc/shadow")}
        for tree in (before, after)
    ]
    for name in sorted(old.keys() | new.keys()):
        both = name in old and name in new
        changed = both and any(hashes[0][path].get(name) != hashes[1][path].get(name) for path in hashes[0])
        if changed or old.get(name) != new.get(name):
            yield Named(name, old.get(name, ""), new.get(name, "") + (", password changed" if changed else ""))


def _user(fields: list[str]) -> str:
    """passwd(5): name, password, uid, gid, GECOS, home, shell."""
    return f"uid {fields[2]}, home {fields[5]}, {fields[6]}" if len(fields) >= 7 else ":".join(fields[1:])


def _group(fields: list[str]) -> str:
    """group(5): name, password, gid, members."""
    return f"gid {fields[2]}" + (f": {fields[3]}" if fields[3] else "") if len(fields) >= 4 else ":".join(fields[1:])


def _sizes(differences: Iterable[Difference]) -> list[tuple[str, int]]:
    total: dict[str, int] = {}
    for each in differences:
        change = (each.after.size if each.after else 0) - (each.before.size if each.before else 0)
        if change:
            parts = each.path.split("/")
            directory = "/".join(parts[: min(DEPTH + 1, len(parts) - 1)]) or "/"
            total[directory] = total.get(directory, 0) + change
    return sorted(total.items(), key=lambda item: (-abs(item[1]), item[0]))


def to_json(found: Comparison) -> dict[str, Any]:
    return {
        "before": found.before,
        "after": found.after,
        "files": [{"path": each.path, "what": list(each.what), "diff": list(each.diff)} for each in found.files],
        **{
            name: [{"name": each.name, "before": each.before, "after": each.after} for each in getattr(found, name)]
            for name in ("packages", "services", "users", "groups")
        },
        "sizes": [{"directory": directory, "bytes": size} for directory, size in found.sizes],
    }
