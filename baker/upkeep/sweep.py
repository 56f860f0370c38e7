"""Clean up after killed builds: processes, machines, disks and directories."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from baker.core import process
from baker.core.errors import BakeError
from baker.core.events import Reporter
from baker.core.home import Home
from baker.core.ledger import DeadBuild, Entry, Ledger
from baker.core.user_namespace import remove_tree
from baker.machines import registry
from baker.machines.base import Builder
from baker.publish import registry as targets
from baker.publish.base import PublishTarget

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog

PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class Swept:
    """A resource of a dead build, or a blob that nothing refers to (with `build` ""). `error`: why it could not be deleted and remains in
    the ledger; "" if it was deleted."""

    build: str
    kind: str
    name: str
    error: str = ""


def sweep(
    home: Home,
    catalog: Catalog,
    report: Reporter,
    *,
    kept: bool = False,
    dry_run: bool = False,
    builders: Sequence[Builder] | None = None,
) -> list[Swept]:
    """Delete the resources of every dead build, newest first. `kept`: also those that a user asked to keep. `builders`: the builders to
    ask; None for all that are installed."""
    ledger = Ledger(home.ledger)
    swept: list[Swept] = []
    for build_id in ledger.dead_builds(kept=kept):
        with ledger.dead(build_id) as build:
            if build is not None:
                swept += _list(build) if dry_run else _sweep_build(build, home, catalog, report, builders)
    return swept


def _list(build: DeadBuild) -> list[Swept]:
    swept = [Swept(build.build_id, "process", str(pid)) for pid in processes_of(build.build_id) if pid != os.getpid()]
    return swept + [Swept(build.build_id, entry.kind, _name(entry)) for entry in build.entries]


def _sweep_build(build: DeadBuild, home: Home, catalog: Catalog, report: Reporter, builders: Sequence[Builder] | None) -> list[Swept]:
    swept = [Swept(build.build_id, "process", str(pid)) for pid in end_processes(build.build_id)]
    for entry in build.entries:
        error = ""
        try:
            if not (entry.details.get("lasting") and _on_record(build.build_id, catalog)):
                reclaim(entry, home, builders)
        except (BakeError, OSError) as problem:
            error = str(problem)
            what = f"{entry.kind} {_name(entry)} of build {build.build_id}"
            report.warn(f"could not delete {what}: {problem}", hint="run bake sweep again")
        else:
            entry.path.unlink(missing_ok=True)
        swept.append(Swept(build.build_id, entry.kind, _name(entry), error))
    return swept


def _on_record(build_id: str, catalog: Catalog) -> bool:
    """Whether the build's image is in the catalog. Then its resources must remain, although the ledger still has them."""
    return any(image.build == build_id for image in catalog.images(all=True))


def reclaim(entry: Entry, home: Home, builders: Sequence[Builder] | None = None) -> None:
    """Delete the resource of an entry. Builders and publication targets delete everything that is not a file or directory."""
    if entry.kind == "directory":
        remove_tree(Path(entry.details["path"]))  # also files of subordinate user ids, from debootstrap
    elif entry.kind == "file":
        Path(entry.details["path"]).unlink(missing_ok=True)
    elif not any(maker.reclaim(entry.kind, entry.details) for maker in _makers(home, builders)):
        raise BakeError(
            f"no installed builder can delete a {entry.kind!r}", hint="install the plugin that created it", code="sweep.unknown-kind"
        )


def _makers(home: Home, builders: Sequence[Builder] | None) -> Iterator[Builder | PublishTarget]:
    """The builders, then the publication targets. Each is loaded only if the previous ones do not know the resource."""
    yield from registry.all_for_sweep(home) if builders is None else builders
    yield from targets.all_for_sweep()


def _name(entry: Entry) -> str:
    return str(entry.details.get("name") or entry.details.get("path") or entry.details.get("id") or dict(entry.details))


def end_processes(build_id: str) -> list[int]:
    """End the processes that have `build_id` in their environment, except this one. Returns their process ids."""
    found = [pid for pid in processes_of(build_id) if pid != os.getpid()]
    for number in (signal.SIGTERM, signal.SIGKILL):
        alive = [pid for pid in found if pid in set(processes_of(build_id))]
        for pid in alive:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and set(found) & set(processes_of(build_id)):
            time.sleep(0.02)
    return found


def processes_of(build_id: str) -> Iterator[int]:
    """The ids of this user's processes that have `build_id` in their environment."""
    mark = f"{process.BUILD_ID_VARIABLE}={build_id}".encode()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (directory / "environ").read_bytes().split(b"\0") and b") Z " not in (directory / "stat").read_bytes():
                yield int(directory.name)
        except OSError:
            continue  # it ended meanwhile, or belongs to another user
