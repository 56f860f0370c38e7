"""The provisioner kind `ansible`: run a playbook from this host over the machine's one SSH connection.

    - ansible: {playbook: ansible/site.yaml, requirements: ansible/requirements.yaml, extra_vars: {port: 80}, idempotent: true}

The result depends only on files that the template names: an ansible.cfg beside the playbook is read, but none of the user's or the
host's. The roles and collections of `requirements` are installed into a directory of this step, and nothing is written to the
user's home.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from baker.provision.base import OnHost, Operation, Run, StepConfig, StepContext
from baker.provision.fields import Env, Paths, Texts
from baker.provision.tools import tool

# What ansible looks for beside a playbook. These are the step's inputs when the playbook is in the template's own directory, where
# unrelated files lie beside it.
BESIDE_PLAYBOOK = (
    "ansible.cfg", "roles", "collections", "group_vars", "host_vars", "vars", "tasks", "handlers", "files", "templates", "library",
    "module_utils", "action_plugins", "callback_plugins", "filter_plugins", "lookup_plugins", "strategy_plugins", "test_plugins",
)  # fmt: skip
EMPTY = "empty.cfg"  # an empty configuration: when ANSIBLE_CONFIG names no file, ansible reads the user's or the host's configuration
CHANGED_TASK = r"TASK \[([^\n]*)\] \**\n(?:(?!TASK \[|PLAY |RUNNING HANDLER )[^\n]*\n)*?changed: \[|RUNNING HANDLER \[([^\n]*)\]"
NEEDS_PYTHON = """command -v python3 >/dev/null || {
  echo "ansible needs python3 in the machine: add a step before this one, such as shell: apt-get install -y python3" >&2
  exit 1
}
"""


class AnsibleConfig(StepConfig):
    """An Ansible playbook that runs on this host against the machine."""

    playbook: Path = Field(description="The playbook file.")
    requirements: Path | None = Field(None, description="Roles and collections for ansible-galaxy to install first.")
    extra_vars: dict[str, Any] = Field(default_factory=dict, description="Extra variables; handed over in a private file.")
    groups: Texts = Field((), description="Inventory groups that the machine is in.")
    tags: Texts = Field((), description="Only plays and tasks with these tags.")
    skip_tags: Texts = Field((), description="No plays and tasks with these tags.")
    become: bool | None = Field(None, description="Become root in the machine. Default: when the login user is not root.")
    idempotent: bool = Field(False, description="Run the playbook a second time and fail when that changes anything.")
    extra_arguments: Texts = Field((), description="More arguments for ansible-playbook, such as -v.")
    roles_path: Paths = Field((), description="More directories with roles.")
    env: Env = Field(default_factory=dict, description="Environment variables for ansible on this host.")
    inputs: Paths = Field((), description="More files and directories that the playbook reads: a change in them runs the step again.")


class Ansible:
    """Run a playbook against the machine."""

    name = "ansible"
    Config: type[BaseModel] = AnsibleConfig

    def inputs(self, config: AnsibleConfig, base_dir: Path) -> Iterable[Path]:
        playbook = base_dir / config.playbook
        named = [config.requirements] if config.requirements else []
        found = [playbook, *(base_dir / path for path in (*named, *config.roles_path, *config.inputs))]
        if playbook.parent != base_dir:
            return [playbook, playbook.parent, *found[1:]] if playbook.exists() else found
        beside = [base_dir / name for name in BESIDE_PLAYBOOK]
        return found + [path for path in beside if path.exists()]

    def operations(self, config: AnsibleConfig, context: StepContext) -> Iterator[Operation]:
        directory = (context.base_dir / config.playbook).parent
        env = {**_environment(config, context.base_dir, directory), **context.env, **config.env}
        yield Run(NEEDS_PYTHON, env=context.env)
        if config.requirements:
            requirements = str(context.base_dir / config.requirements)
            install = (tool("ansible-galaxy"), "install", "-r", requirements)
            yield OnHost(install, env=env, files={EMPTY: ""}, cwd=directory, galaxy=Path(requirements))
        argv = _playbook(config, context.base_dir)
        files = {EMPTY: "", "inventory.json": _inventory(config), "extra_vars.json": json.dumps(config.extra_vars)}
        yield OnHost(argv, env=env, files=files, cwd=directory)
        if config.idempotent:
            complaint = "the playbook is not idempotent: its second run changed {found}"
            yield OnHost(argv, env=env, cwd=directory, refuse=CHANGED_TASK, expect=r"changed=0\b", complaint=complaint)


def _playbook(config: AnsibleConfig, base_dir: Path) -> tuple[str, ...]:
    argv = [tool("ansible-playbook"), "-i", "{files}/inventory.json"]
    argv += ["--extra-vars", "@{files}/extra_vars.json"] if config.extra_vars else []
    argv += [f"--tags={','.join(config.tags)}"] if config.tags else []
    argv += [f"--skip-tags={','.join(config.skip_tags)}"] if config.skip_tags else []
    return (*argv, *config.extra_arguments, str(base_dir / config.playbook))


def _inventory(config: AnsibleConfig) -> str:
    """An inventory (JSON, which is also YAML) of the one machine. Its address and user come from the environment, not from argv."""
    become: Any = "{{ lookup('env', 'BAKE_ANSIBLE_USER') != 'root' }}" if config.become is None else config.become
    host = {"ansible_host": "{{ lookup('env', 'BAKE_ANSIBLE_HOST') }}", "ansible_become": become}
    return json.dumps(
        {"all": {"hosts": {"default": host}, "children": {group: {"hosts": {"default": None}} for group in config.groups}}}, indent=1
    )


def _environment(config: AnsibleConfig, base_dir: Path, directory: Path) -> dict[str, str]:
    """Ansible's settings as environment variables (ansible-config(1)). The executor replaces `{...}`, see OnHost."""
    settings = directory / "ansible.cfg"
    roles = ["{files}/roles", str(directory / "roles"), *(str(base_dir / path) for path in config.roles_path)]
    return {
        "ANSIBLE_CONFIG": str(settings) if settings.exists() else f"{{files}}/{EMPTY}",
        "ANSIBLE_HOME": "{files}/ansible",
        "ANSIBLE_LOCAL_TEMP": "{files}/tmp",
        "ANSIBLE_REMOTE_TEMP": "/tmp/.ansible-${USER}",
        "ANSIBLE_ROLES_PATH": ":".join(roles),
        "ANSIBLE_COLLECTIONS_PATH": f"{{files}}/collections:{directory / 'collections'}",
        "ANSIBLE_SSH_ARGS": f"-F {shlex.quote('{ssh_config}')}",
        "ANSIBLE_SSH_TRANSFER_METHOD": "piped",  # needs no sftp server in the machine
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_PIPELINING": "True",
        "ANSIBLE_TIMEOUT": "60",
        "ANSIBLE_PYTHON_INTERPRETER": "auto_silent",
        "ANSIBLE_RETRY_FILES_ENABLED": "False",
        "ANSIBLE_NOCOLOR": "True",
        "ANSIBLE_NOCOWS": "True",
        "ANSIBLE_LOCALHOST_WARNING": "False",
        "BAKE_ANSIBLE_HOST": "{host}",
        "BAKE_ANSIBLE_USER": "{user}",
        "PYTHONUNBUFFERED": "1",
    }
