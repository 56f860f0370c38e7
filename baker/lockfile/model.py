"""The models of a lock file, and its reader, which reports every problem with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from baker.core.errors import LockError, Problem
from baker.template.base_model import Frozen
from baker.template.validation_errors import validate
from baker.template.yaml_document import Problems, parse, read

SCHEMA: Literal[1] = 1
HEADER = "# Written by `bake lock`: what the image was built from. Commit it; `bake build --locked` fails if a build differs from it.\n"
MAKE_ONE = "`bake lock {}` writes one"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
PackageLine = Annotated[str, Field(pattern=r"^\S+ \S+ \S+ (deb|rpm|apk)$")]  # name, version, architecture or "-", kind


class LockedRepository(Frozen):
    """The git commit of the template. For information only: committing the lock makes another commit."""

    commit: str = ""
    dirty: bool = False


class LockedSource(Frozen):
    """The exact source, and the pins that find it again."""

    kind: str
    title: str
    digest: Digest
    pins: dict[str, str] = Field(default_factory=dict)


class LockedIndex(Frozen):
    """A package index that the build read; `date` is the one in the index."""

    url: str
    digest: Digest
    date: str = ""


class LockedDownload(Frozen):
    """A package file that the build fetched."""

    url: str
    digest: Digest


class LockedContent(Frozen):
    """A role or collection of Ansible. The digest covers all its files; `ref` and `commit` are the requested ref and its commit in git."""

    name: str
    version: str = ""
    digest: Digest
    source: str = ""
    ref: str = ""
    commit: str = ""


class LockedTool(Frozen):
    """A tool of the host. `sha256` is the digest of its binary, or "" if it had changed since the build."""

    version: str
    sha256: Sha256 | Literal[""] = ""


class LockedImage(Frozen):
    """One image of the template."""

    version: str
    inputs: Sha256  # digest of builder, steps and values: see baker.lockfile.check.inputs_digest
    source: LockedSource
    files: dict[str, Sha256] = Field(default_factory=dict)  # path relative to the template -> digest, as in the plan
    indexes: tuple[LockedIndex, ...] = ()
    downloads: tuple[LockedDownload, ...] = ()
    roles: tuple[LockedContent, ...] = ()
    collections: tuple[LockedContent, ...] = ()
    packages: tuple[PackageLine, ...] = ()


class Lock(Frozen):
    """A whole lock file."""

    schema_: Literal[1] = Field(alias="schema")
    epoch: Annotated[int, Field(ge=0, lt=10**12)]
    template: str
    repository: LockedRepository = LockedRepository()
    tools: dict[str, LockedTool] = Field(default_factory=dict)
    images: dict[str, LockedImage]

    def text(self) -> str:
        """The text of the file. Keys are in the order of the models and lists are sorted, so that a change touches few lines."""
        import yaml

        data: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        dumped: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10_000, default_flow_style=False)
        return HEADER + dumped


def load_lock(path: Path) -> Lock:
    """Read the lock file `path`. LockError with every problem, also if there is no such file."""
    if not path.exists():
        template = path.name.replace(".lock.yaml", ".yaml")
        raise LockError([Problem(str(path), 0, 0, "there is no lock file", MAKE_ONE.format(template), code="lock.missing")])
    problems = Problems()
    document = read(path, str(path), problems)
    root = parse(document, problems) if document else None
    lock = validate(Lock, root, problems) if root else None
    if problems or lock is None:
        raise LockError(
            problems.list() or [Problem(str(path), 0, 0, "the lock file is empty", MAKE_ONE.format("TEMPLATE"), code="lock.empty")]
        )
    return lock
