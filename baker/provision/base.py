"""The interface of provisioner kinds: a kind turns a step's YAML into operations, and the executor runs them.

A kind is found by its name in the entry-point group `baker.provisioners`; the built-in kinds are listed in registry.py.
Because a kind only yields operations, its tests need no machine: each case is one data file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict


class StepConfig(BaseModel):
    """Base class of every kind's `Config`: immutable, rejects unknown keys, and accepts a number (`port: 80`) for a string field."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, protected_namespaces=())


@dataclass(frozen=True)
class Run:
    """Run a script in the guest."""

    script: str  # its text
    user: str = "root"
    env: Mapping[str, str] = field(default_factory=dict)
    shell: str = "/bin/sh"
    cwd: str | None = None
    expected_exit_codes: frozenset[int] = frozenset({0})
    expect_disconnect: bool = False  # the script may reboot the guest: the executor then waits until the guest is reachable again


@dataclass(frozen=True)
class Put:
    """Write a file in the guest. An empty `group` means the owner's login group."""

    data: bytes = field(repr=False)
    destination: str
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"


@dataclass(frozen=True)
class PutTree:
    """Copy the content of a directory, or a single file, into a directory in the guest.

    A mode of None keeps two properties of each file: whether its owner may execute it, and whether it is private (no permissions for
    group and others). Everything else becomes 0644 or 0755, so that checkouts with different umasks give the same image. `rename`
    is the name of a single file in the guest. An empty `group` means the owner's login group.
    """

    source: Path
    destination: str
    rename: str = ""
    mode: int | None = None
    directory_mode: int | None = None
    owner: str = "root"
    group: str = "root"
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class OnHost:
    """Run a command on this host against the guest.

    In the arguments and in the values of `env`, the executor replaces `{ssh_config}` (path of an OpenSSH client configuration),
    `{host}` (the guest's alias in it), `{user}` (the login user) and `{files}` (a private directory that all such operations of a
    step share; it is deleted when the step ends).
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict, repr=False)  # name -> content, written below `{files}`
    cwd: Path | None = None
    expect: str = ""  # a regular expression that the output must match
    refuse: str = ""  # a regular expression that the output must not match; its groups are the findings that the error names
    galaxy: Path | None = None  # the requirements file whose roles and collections the command installs below `{files}`, for the record
    complaint: str = ""  # the error message when `expect` or `refuse` is violated; `{found}` is replaced by the findings


Operation = Run | Put | PutTree | OnHost


@dataclass(frozen=True)
class StepContext:
    """What a kind may use to make operations."""

    base_dir: Path  # the directory that relative paths in the step start from
    step: str
    variables: Mapping[str, Any]
    env: Mapping[str, str]  # passed to every command: BAKE_*, SOURCE_DATE_EPOCH, ...


class Provisioner(Protocol):
    """A kind of provisioning step."""

    name: str
    Config: type[BaseModel]

    def inputs(self, config: Any, base_dir: Path) -> Iterable[Path]:
        """The files and directories on this host whose content can change the result of the step."""

    def operations(self, config: Any, context: StepContext) -> Iterable[Operation]:
        """The operations of the step, in order."""
