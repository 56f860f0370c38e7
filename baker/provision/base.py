"""The seam to provisioner kinds: a kind turns its YAML into operations; the executor carries them out.

A kind is found by its name in the entry-point group `baker.provisioners`; the built-in ones are listed in registry.py.
Because a kind only yields operations, its tests need no machine: one data file per case.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict


class StepConfig(BaseModel):
    """Base of every kind's `Config`: immutable, unknown keys are errors, `port: 80` is as good as `port: "80"` for a string."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, protected_namespaces=())


@dataclass(frozen=True)
class Run:
    """Run a script in the guest."""

    script: str
    user: str = "root"
    env: Mapping[str, str] = field(default_factory=dict)
    shell: str = "/bin/sh"
    cwd: str | None = None
    expected_exit_codes: frozenset[int] = frozenset({0})
    expect_disconnect: bool = False  # the script may reboot the guest: wait until it is back


@dataclass(frozen=True)
class Put:
    """Write a file in the guest. `group` "": the owner's login group."""

    data: bytes = field(repr=False)
    destination: str
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"


@dataclass(frozen=True)
class PutTree:
    """Copy a directory's content, or a file, below a directory in the guest.

    A mode of None: executable stays executable and private (nothing for group and others) stays private, everything else is
    0644 and 0755, so that two checkouts with different umasks make one image. `rename` is the name that a single file gets,
    `group` "" the owner's login group.
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

    `{ssh_config}`, `{host}` (its alias there), `{user}` (who logs in) and `{files}` are filled in in arguments and in the values
    of `env`. `{files}` is a private directory, one for all such operations of a step, deleted at the step's end.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict, repr=False)  # name -> content, written below `{files}`
    cwd: Path | None = None
    expect: str = ""  # a regular expression that the output must match
    refuse: str = ""  # a regular expression that the output must not match; its first group says what was found
    galaxy: Path | None = None  # the requirements of which it puts roles and collections below `{files}`: those go on record
    complaint: str = ""  # the error when `expect` or `refuse` is not met; `{found}` is filled in


Operation = Run | Put | PutTree | OnHost


@dataclass(frozen=True)
class StepContext:
    """What a kind may know when it makes operations."""

    base_dir: Path
    step: str
    variables: Mapping[str, Any]
    env: Mapping[str, str]  # handed to every command: BAKE_*, SOURCE_DATE_EPOCH, ...


class Provisioner(Protocol):
    """A kind of provisioning step."""

    name: str
    Config: type[BaseModel]

    def inputs(self, config: Any, base_dir: Path) -> Iterable[Path]:
        """The files and directories on this host whose content can change the outcome."""

    def operations(self, config: Any, context: StepContext) -> Iterable[Operation]:
        """What to do, in order."""
