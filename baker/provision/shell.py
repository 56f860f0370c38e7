"""The provisioner kind `shell`: run commands and scripts in the guest.

    - shell: apt-get update
    - shell: [apt-get update, apt-get install -y nginx-light]
    - shell: {script: scripts/setup.sh, args: [--fast], env: {STAGE: prod}, user: app, cwd: /srv}

The lines of `inline` form one script, which runs with `-e`: it ends at the first command that fails.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from baker.core.errors import BuildError
from baker.provision.base import Operation, Put, Run, StepConfig, StepContext
from baker.provision.fields import Account, Env, ExitCodes, GuestPath, Paths, Texts

SHELLS = frozenset({"sh", "ash", "bash", "dash", "ksh", "mksh", "zsh"})  # interpreters that understand -e
UPLOADS = "/run/bake"  # a tmpfs, so that a script leaves no trace on the disk


class ShellConfig(StepConfig):
    """Commands or scripts that run in the guest. A plain string or list is short for `inline`."""

    inline: Texts = Field((), description="Commands, run as one script.")
    script: Path | None = Field(None, description="A script file on this host; its first line (#!) chooses the interpreter.")
    scripts: Paths = Field((), description="Several script files, run one after the other.")
    args: Texts = Field((), description="Arguments of the script: $1, $2, ...")
    env: Env = Field(default_factory=dict, description="Environment variables for the commands.")
    user: Account = Field("root", description="The user of the guest who runs the commands.")
    shell: GuestPath | None = Field(
        None, description="The shell that runs the commands with -e. Default: /bin/sh, or what a script's #! says."
    )
    cwd: GuestPath | None = Field(None, description="The directory in the guest to run in. Default: the user's home.")
    valid_exit_codes: ExitCodes = Field((0,), min_length=1, description="Exit codes that count as success.")
    expect_disconnect: bool = Field(False, description="The commands may reboot the machine; go on when it is back.")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"inline": value} if isinstance(value, (str, list, tuple)) else value

    @model_validator(mode="after")
    def _one_of(self) -> ShellConfig:
        given = [name for name in ("inline", "script", "scripts") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError("give exactly one of inline, script and scripts" + (f", not {' and '.join(given)}" if given else ""))
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        whole = handler.resolve_ref_schema(handler(core_schema))
        short = [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
        return {"title": "shell", "description": cls.__doc__, "anyOf": [*short, whole]}


class Shell:
    """Run commands and scripts in the guest."""

    name = "shell"
    Config: type[BaseModel] = ShellConfig

    def inputs(self, config: ShellConfig, base_dir: Path) -> Iterable[Path]:
        return [base_dir / path for path in _scripts(config)]

    def operations(self, config: ShellConfig, context: StepContext) -> Iterator[Operation]:
        if config.inline:
            yield _run(config, "\n".join(config.inline) + "\n", config.shell or "/bin/sh")
        for number, path in enumerate(_scripts(config), start=1):
            yield from _script(config, context.base_dir / path, number)


def _scripts(config: ShellConfig) -> tuple[Path, ...]:
    return (config.script,) if config.script else config.scripts


def _script(config: ShellConfig, path: Path, number: int) -> Iterator[Operation]:
    """The operations that run a script file.

    A shell script runs the way `inline` does. Any other script is written to the guest's /run and passed to its interpreter; it is
    removed at the end. Raises BuildError when the file cannot be read or is not UTF-8 text.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BuildError(f"cannot read the script {path}: {error.strerror}", code="step.file-unreadable") from error
    interpreter = _shebang(data)
    if config.shell or interpreter is None or PurePosixPath(interpreter[0]).name in SHELLS:
        yield _run(config, _text(data, path), config.shell or (interpreter or ["/bin/sh"])[0])
        return
    copy = f"{UPLOADS}/{number}-{re.sub(r'[^A-Za-z0-9._-]', '_', path.name)}"
    if config.user != "root":  # sticky: the user may remove its own script from the directory, and nobody else's
        yield Run(f"install -d -m 1777 {UPLOADS}")
    yield Put(data, copy, mode=0o500, owner=config.user, group="root")
    words = shlex.join([*interpreter, copy, *config.args])
    yield _run(config, f"trap 'rm -f {copy}' EXIT\n{words}\n", "/bin/sh", with_args=False)


def _shebang(data: bytes) -> list[str] | None:
    """The interpreter and its options from a script's `#!` line, or None. `/usr/bin/env SHELL` is resolved to /bin/SHELL."""
    first = data.split(b"\n", 1)[0].decode("utf-8", "replace").strip()
    if not first.startswith("#!"):
        return None
    words = first[2:].split()
    if len(words) == 2 and PurePosixPath(words[0]).name == "env" and words[1] in SHELLS:
        return [f"/bin/{words[1]}"]
    return words or None


def _text(data: bytes, path: Path) -> str:
    try:
        return data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise BuildError(
            f"the script {path} is not UTF-8 text (byte {error.start})",
            hint="save it as UTF-8; a program needs a first line (#!) that names its interpreter",
            code="step.file-encoding",
        ) from error


def _run(config: ShellConfig, script: str, shell: str, *, with_args: bool = True) -> Run:
    if config.args and with_args:
        script = f"set -- {shlex.join(config.args)}\n{script}"
    return Run(
        script=script,
        user=config.user,
        env=config.env,
        shell=shell,
        cwd=config.cwd,
        expected_exit_codes=frozenset(config.valid_exit_codes),
        expect_disconnect=config.expect_disconnect,
    )
