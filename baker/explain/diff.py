"""The difference between two file trees in a user's terms: files, packages, services, users, groups, and sizes of directories."""

from __future__ import annotations

import difflib
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from baker.artifacts.trees import Difference, compare_trees
from baker.core.model import FileEntry, Package

Read = Callable[[str], bytes | None]
MAX_TEXT_BYTES = 64 << 10  # the lines of larger files are not compared
MAX_DIFF_LINES = 200  # of one file
UNIT_DIRECTORIES = ("/etc/systemd/system/", "/usr/lib/systemd/system/", "/lib/systemd/system/")
SIZE_DEPTH = 2  # path components of the directories by which sizes are summed


@dataclass(frozen=True)
class Tree:
    """One side of a comparison.

    `read` returns the content of the file at a path, or None when it cannot be read. `unread` has the reasons why packages may be
    missing from `packages`.
    """

    title: str
    entries: Sequence[FileEntry]
    packages: Sequence[Package]
    read: Read
    unread: Sequence[str] = ()


@dataclass(frozen=True)
class FileChange:
    """The change of one path. `diff`: the lines of a unified diff, for a small text file."""

    path: str
    what: tuple[str, ...]  # "added", "removed", or what differs: "content", "mode", "owner", "time", ...
    before: FileEntry | None
    after: FileEntry | None
    diff: tuple[str, ...] = ()


@dataclass(frozen=True)
class ItemChange:
    """The change of a package, service, user or group. `before` and `after` describe it; "" when it does not exist."""

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    `sizes`: (directory, change of size in bytes), the largest changes first. `notes`: what could not be compared, and why.
    """

    before: str
    after: str
    files: tuple[FileChange, ...] = ()
    packages: tuple[ItemChange, ...] = ()
    services: tuple[ItemChange, ...] = ()
    users: tuple[ItemChange, ...] = ()
    groups: tuple[ItemChange, ...] = ()
    sizes: tuple[tuple[str, int], ...] = field(default_factory=tuple)
    notes: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether neither files nor packages differ."""
        return not (self.files or self.packages)


def compare(before: Tree, after: Tree, *, times: bool = False) -> Comparison:
    """Compare two trees. A file of which only the modification time differs is left out, unless `times` is set."""
    differences = [each for each in compare_trees(before.entries, after.entries) if times or each.what != ("time",)]
    return Comparison(
        before.title,
        after.title,
        tuple(_file_change(each, before.read, after.read) for each in differences),
        tuple(_item_changes(_packages(before.packages), _packages(after.packages))),
        tuple(_item_changes(_services(before.entries), _services(after.entries))),
        tuple(_users(before, after)),
        tuple(_accounts("/etc/group", before, after, _group)),
        tuple(_sizes(differences)),
        tuple(f"{tree.title}: packages may be missing from its list: {reason}" for tree in (before, after) for reason in tree.unread),
    )


def _file_change(difference: Difference, old: Read, new: Read) -> FileChange:
    lines: tuple[str, ...] = ()
    if "content" in difference.what and difference.path not in SECRET_FILES:
        before, after = old(difference.path), new(difference.path)
        if before is not None and after is not None:
            lines = tuple(_unified_diff(difference.path, before, after))
    return FileChange(difference.path, difference.what, difference.before, difference.after, lines)


ACCOUNTS = ("/etc/shadow", "/etc/gshadow", "/etc/passwd", "/etc/group")
SECRET_FILES = frozenset([*ACCOUNTS, *(f"{path}-" for path in ACCOUNTS)])  # no diff shows a password hash; `users` says that it changed


def _unified_diff(path: str, before: bytes, after: bytes) -> Iterator[str]:
    old, new = _text_lines(before), _text_lines(after)
    if old is None or new is None:
        return
    for number, line in enumerate(difflib.unified_diff(old, new, f"a{path}", f"b{path}", lineterm="")):
        if number == MAX_DIFF_LINES:
            yield "..."
            return
        yield line


def _text_lines(data: bytes) -> list[str] | None:
    """The lines of a small text file; None for a large file, or one that is not UTF-8 text."""
    if len(data) > MAX_TEXT_BYTES or b"\0" in data:
        return None
    try:
        return data.decode().splitlines()
    except UnicodeDecodeError:
        return None


def _item_changes(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[ItemChange]:
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield ItemChange(name, before.get(name, ""), after.get(name, ""))


def _packages(packages: Iterable[Package]) -> dict[str, str]:
    """The versions of packages by name, comma-separated when there are several (kernels, other architectures)."""
    by_name: dict[str, list[str]] = {}
    for each in packages:
        by_name.setdefault(each.name, []).append(each.version)
    return {name: ", ".join(sorted(versions)) for name, versions in by_name.items()}


def _services(entries: Iterable[FileEntry]) -> dict[str, str]:
    """The state of systemd units: enabled (a link in a .wants or .requires directory), masked (a link to /dev/null) or installed."""
    installed: set[str] = set()
    enabled: set[str] = set()
    masked: set[str] = set()
    for entry in entries:
        if not entry.path.startswith(UNIT_DIRECTORIES):
            continue
        directory, _, name = entry.path.rpartition("/")
        if directory.endswith((".wants", ".requires")):
            enabled.add(name)
        elif stat.S_ISLNK(entry.mode) and entry.target == "/dev/null":
            masked.add(name)
        elif name.endswith((".service", ".socket", ".timer", ".mount", ".path")) and not stat.S_ISDIR(entry.mode):
            installed.add(name)
    return {name: "masked" if name in masked else "enabled" if name in enabled else "installed" for name in installed | enabled | masked}


def _accounts(path: str, before: Tree, after: Tree, read: Callable[[list[str]], str]) -> Iterator[ItemChange]:
    yield from _item_changes(*({name: read(fields) for name, fields in _entries_by_name(tree, path).items()} for tree in (before, after)))


def _entries_by_name(tree: Tree, path: str) -> dict[str, list[str]]:
    """The fields of the lines of a file like passwd(5), by their first field."""
    text = (tree.read(path) or b"").decode("utf-8", "replace")
    return {line.partition(":")[0]: line.split(":") for line in text.splitlines() if ":" in line}


def _users(before: Tree, after: Tree) -> Iterator[ItemChange]:
    """Yield the changes of users. A changed password is reported without its hash."""
    old, new = ({name: _user(fields) for name, fields in _entries_by_name(tree, "/etc/passwd").items()} for tree in (before, after))
    hashes = [
        {path: {name: fields[1] for name, fields in _entries_by_name(tree, path).items()} for path in ("/etc/passwd", "/etc/shadow")}
        for tree in (before, after)
    ]
    for name in sorted(old.keys() | new.keys()):
        both = name in old and name in new
        changed = both and any(hashes[0][path].get(name) != hashes[1][path].get(name) for path in hashes[0])
        if changed or old.get(name) != new.get(name):
            yield ItemChange(name, old.get(name, ""), new.get(name, "") + (", password changed" if changed else ""))


def _user(fields: list[str]) -> str:
    """Describe a line of passwd(5): name, password, uid, gid, GECOS, home, shell."""
    return f"uid {fields[2]}, home {fields[5]}, {fields[6]}" if len(fields) >= 7 else ":".join(fields[1:])


def _group(fields: list[str]) -> str:
    """Describe a line of group(5): name, password, gid, members."""
    return f"gid {fields[2]}" + (f": {fields[3]}" if fields[3] else "") if len(fields) >= 4 else ":".join(fields[1:])


def _sizes(differences: Iterable[Difference]) -> list[tuple[str, int]]:
    """(directory, change of size in bytes), the largest changes first."""
    total: dict[str, int] = {}
    for each in differences:
        change = (each.after.size if each.after else 0) - (each.before.size if each.before else 0)
        if change:
            parts = each.path.split("/")
            directory = "/".join(parts[: min(SIZE_DEPTH + 1, len(parts) - 1)]) or "/"
            total[directory] = total.get(directory, 0) + change
    return sorted(total.items(), key=lambda item: (-abs(item[1]), item[0]))


def to_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as `bake diff --json` prints it."""
    return {
        "before": comparison.before,
        "after": comparison.after,
        "files": [{"path": each.path, "what": list(each.what), "diff": list(each.diff)} for each in comparison.files],
        **{
            name: [{"name": each.name, "before": each.before, "after": each.after} for each in getattr(comparison, name)]
            for name in ("packages", "services", "users", "groups")
        },
        "sizes": [{"directory": directory, "bytes": size} for directory, size in comparison.sizes],
    }
