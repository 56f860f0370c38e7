"""Everything that a build read on this host, as one blob, from which the template can be loaded on any host to the same plan.

The blob is a gzipped tar that depends on its content only (sorted names, no times, no owners):

    context.json                variables, environment and git facts; without the values of secrets
    files/<absolute path>       every file, directory and symbolic link, with its mode
"""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from baker.core.disk_space import free
from baker.core.errors import HostError
from baker.core.home import ensure
from baker.core.tar_reader import TarError, TarReader, extract
from baker.plan.plan import Plan
from baker.template.git import GitFacts
from baker.template.model import Template

CONTEXT, FILES = "context.json", "files"
VERSION = 1
LARGEST_CONTEXT = 16 << 20  # bytes
KEPT_FREE = 512 << 20  # bytes that unpacking leaves free on the file system


@dataclass(frozen=True)
class Context:
    """The input of a template's loading besides its files. `secrets`: the names of variables whose values are left out."""

    template: str  # absolute path
    name: str  # of the image, which selects one of a matrix
    variables: Mapping[str, Any] = field(default_factory=dict)
    secrets: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)  # the variables that ${{ env.X }} expressions read
    git: Mapping[str, Any] = field(default_factory=dict)
    search: Sequence[str] = ()  # directories in which bundles are searched
    epoch: int = 0
    version: int = VERSION


def pack(plan: Plan, destination: Path, *, search: Iterable[Path] = ()) -> Path:
    """Write the inputs of `plan` to `destination`. OSError when a file no longer exists, or when the file system is full."""
    template = plan.template
    with destination.open("wb") as file, gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
            context = json.dumps(_context(template, search).__dict__, sort_keys=True, default=str).encode()
            tar.addfile(_info(CONTEXT, len(context)), io.BytesIO(context))
            for path in sorted({Path(os.path.normpath(path)) for path in _files(plan)}):
                _add(tar, path)
    return destination


def unpack(packed: IO[bytes], directory: Path) -> Context:
    """Extract the files below `directory`. HostError for an archive that is damaged, has a path outside, or does not fit on the disk."""
    ensure(directory)
    try:
        with gzip.GzipFile(fileobj=packed) as file:
            extract(TarReader(cast(IO[bytes], file), budget=max(0, free(directory) - KEPT_FREE)), directory)
        with (directory / CONTEXT).open("rb") as context:
            found = json.loads(context.read(LARGEST_CONTEXT))
        if not isinstance(found, dict) or found.get("version") != VERSION:
            version = found.get("version") if isinstance(found, dict) else None
            message = f"the recorded inputs have version {version}; this version of bake reads version {VERSION}"
            raise HostError(message, code="record.inputs-version")
        return Context(**found)
    except TarError as error:
        raise HostError(f"cannot read the recorded inputs: {error.message}", code=error.code) from error
    except (OSError, ValueError, TypeError, EOFError, zlib.error, RecursionError) as error:
        raise HostError(f"cannot read the recorded inputs: {error}", code="record.inputs-unreadable") from error


def extracted_path(directory: Path, path: str | Path) -> Path:
    """The path below `directory` of a file that had the absolute path `path` on the recording host."""
    return directory / FILES / Path(path).relative_to("/")


def _context(template: Template, search: Iterable[Path]) -> Context:
    secrets = template.secrets
    variables = {each.name: each.value for each in template.variables.values() if not each.sensitive and each.origin != "default"}
    environment = {name: value for name, value in template.environment.items() if secrets.mask(value) == value}
    return Context(
        template=str(template.path),
        name=template.name,
        variables=variables,
        secrets=sorted(each.name for each in template.variables.values() if each.sensitive),
        environment=environment,
        git={"commit": template.git_commit, "dirty": template.git_dirty, "branch": template.git.branch},
        search=[str(path) for path in search],
        epoch=template.epoch.seconds,
    )


def _files(plan: Plan) -> Iterator[Path]:
    """The absolute paths of the files that loading read, that the steps read, and that are tests."""
    template = plan.template
    yield from (Path(name).absolute() for name in template.contents)
    yield template.path
    yield from template.files
    for planned in plan.steps:
        yield from _below(planned.step.base_dir, planned.files)
    for spec in template.verify:
        for path in spec.testinfra:
            whole = path if path.is_absolute() else spec.base_dir / path
            yield from [whole, *whole.rglob("*")] if whole.is_dir() else [whole]
            yield from whole.parent.glob("conftest.py")


def _below(base: Path, names: Iterable[str]) -> Iterator[Path]:
    for name in names:
        yield base / name  # this is `name` when it is absolute


def _add(tar: tarfile.TarFile, path: Path) -> None:
    status = path.lstat()
    info = _info(f"{FILES}{path}", 0, stat.S_IMODE(status.st_mode))
    if stat.S_ISLNK(status.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
        tar.addfile(info)
    elif stat.S_ISDIR(status.st_mode):
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    elif stat.S_ISREG(status.st_mode):
        with path.open("rb") as file:
            info.size = status.st_size
            tar.addfile(info, file)


def _info(name: str, size: int, mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, mode
    return info


@dataclass(frozen=True)
class RecordedGit(GitFacts):
    """The git facts of a recorded build."""

    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        return str(self.facts.get("commit", ""))

    @property
    def short(self) -> str:
        return self.commit[:8]

    @property
    def branch(self) -> str:
        return str(self.facts.get("branch", ""))

    @property
    def dirty(self) -> bool:
        return bool(self.facts.get("dirty", False))

    @property
    def error(self) -> str:
        return "" if self.commit else "the recorded build was not in a git repository"
