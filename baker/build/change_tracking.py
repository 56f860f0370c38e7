"""Determines which step changed each file last, from the disk's inode tables before and after each step."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from baker.artifacts.changes import Change, changes
from baker.core.model import Disk, FileEntry
from baker.disks.inode_tables import InodeTables, Key, changed_inodes, fingerprint_of, generation, read_inode_tables
from baker.disks.manifest import manifest_entry
from baker.disks.rootfs import Root, RootFile, open_root

FORMAT = 1  # of the file in a layer


@dataclass
class ChangedInodes:
    """The step that changed each inode last. A step of None means that something other than a step changed it."""

    last: dict[Key, int | None] = field(default_factory=dict)
    gone: dict[tuple[Key, str], int | None] = field(
        default_factory=dict
    )  # (inode, generation in hex) of a file -> the step that removed it
    boundary: InodeTables | None = None  # the inodes after the last step

    def add(self, after: InodeTables, step: int | None) -> None:
        """Record the differences from the last boundary. The first call only sets the boundary."""
        for key, old, new in changed_inodes(self.boundary, after) if self.boundary is not None else ():
            self.last[key] = step
            if old and (not new or generation(old) != generation(new)):
                self.gone[key, generation(old).hex()] = step
        self.boundary = after

    def write(self, path: Path) -> None:
        """Write a JSON file, without the boundary."""
        last = [[*key, step] for key, step in self.last.items()]
        gone = [[*key, mark, step] for (key, mark), step in self.gone.items()]
        path.write_text(json.dumps({"format": FORMAT, "last": last, "gone": gone}))


def read(path: Path) -> ChangedInodes | None:
    """Read a file of `write`; None when it is missing or has another format."""
    try:
        value = json.loads(path.read_text())
        if value["format"] != FORMAT:
            return None
        gone = {((start, number), mark): step for start, number, mark, step in value["gone"]}
        return ChangedInodes({(start, number): step for start, number, step in value["last"]}, gone)
    except (OSError, ValueError, KeyError, TypeError):
        return None


# --- from inodes to paths ----------------------------------------------------------------------------------------------


def find_changes(
    source: Disk,
    left: Disk,
    manifest: Iterable[FileEntry],
    changed: ChangedInodes,
    *,
    ruled: frozenset[str] = frozenset(),
    scratch: Path | None = None,
) -> list[Change]:
    """Return the changes of a build by path. `left`: the disk at the machine's shutdown; `manifest`: of the image; `ruled`: the paths that
    normalization rules changed in between. Only files that differ are read. UnsupportedFilesystem when a disk cannot be read."""
    after = {entry.path: entry for entry in manifest}
    with open_root(source, scratch=scratch, replay=True) as old, open_root(left, scratch=scratch, replay=True) as new:
        before_tables, tables = read_inode_tables(source), read_inode_tables(left)
        changed.add(tables, None)
        now = {found.path: key_of(found) for found in new.walk()}
        was: dict[str, tuple[Key, str]] = {}

        def entries() -> Iterator[FileEntry]:
            for found in old.walk():
                mark = fingerprint_of(before_tables, found.tree.fs, found.inode.number)
                was[found.path] = (key_of(found), generation(mark).hex())
                same = now.get(found.path) == key_of(found) and mark == fingerprint_of(tables, found.tree.fs, found.inode.number)
                known = after.get(found.path) if same and found.path not in ruled else None
                yield manifest_entry(found, known.sha256 if known else _sha256(old, found))

        found = list(changes(entries(), after.values(), {}))
    return [Change(each.path, each.change, _step(each, now, was, changed), each.before, each.after) for each in found]


def _step(change: Change, now: dict[str, Key], was: dict[str, tuple[Key, str]], changed: ChangedInodes) -> int | None:
    """The step that changed a path last. For a path that moved with its directory it is the step that changed the directory."""
    path = change.path
    while True:
        if change.change == "removed":
            if path in was and was[path] in changed.gone:
                return changed.gone[was[path]]
            key = was[path][0] if path in was else None
        else:
            key = now.get(path)
        if key in changed.last:
            return changed.last[key]
        if change.change == "changed" or path in ("/", ""):
            return None
        path = path.rpartition("/")[0] or "/"


def key_of(found: RootFile) -> Key:
    """The inode of a file in a tree."""
    return found.tree.fs.start, found.inode.number


def _sha256(root: Root, found: RootFile) -> str:
    return root.sha256(found) if found.inode.is_file else ""
