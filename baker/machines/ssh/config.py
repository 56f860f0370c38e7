"""The one OpenSSH client configuration of a machine: what ssh, sftp, ansible, testinfra and a person get in with."""

from __future__ import annotations

import os
from pathlib import Path

from baker.core import process
from baker.core.errors import HostError
from baker.core.model import Endpoint, Identity

# A UNIX socket path holds 108 bytes with its final NUL (unix(7)); ssh first binds the control path with 17 characters added.
LONGEST_CONTROL_PATH = 108 - 1 - 17

ALIVE_INTERVAL = 15  # seconds; with the count below: how long a guest may be silent before it counts as lost
ALIVE_COUNT = 8


def ssh_config(alias: str, endpoint: Endpoint, identity: Identity, *, known_hosts: Path, control_path: Path) -> str:
    """The text of the configuration (ssh_config(5)).

    Only our own key is offered and only the injected host key is believed. `ControlMaster no` on purpose: clients share the master
    connection that bake holds, and none of them can become a master that would outlive the build.
    """
    if len(os.fsencode(control_path)) > LONGEST_CONTROL_PATH:
        raise HostError(f"{control_path} is too long for a socket path", hint="set BAKE_HOME or TMPDIR to a shorter directory")
    options = {
        "HostName": endpoint.host,
        "Port": str(endpoint.port),
        "User": identity.username,
        "HostKeyAlias": alias,
        "IdentityFile": _quoted(identity.client_key),
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "UserKnownHostsFile": _quoted(known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "HostKeyAlgorithms": "ssh-ed25519",
        # first what an emulated guest computes fast: keys live for one build and the connection is on the loopback
        "KexAlgorithms": "^curve25519-sha256",
        "PreferredAuthentications": "publickey",
        "BatchMode": "yes",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "ControlMaster": "no",
        "ControlPath": _quoted(control_path),
        "ServerAliveInterval": str(ALIVE_INTERVAL),
        "ServerAliveCountMax": str(ALIVE_COUNT),
        "LogLevel": "ERROR",
    }
    if endpoint.proxy_command:
        options["ProxyCommand"] = endpoint.proxy_command  # ssh hands the rest of the line to a shell: not quoted here
    return f"Host {alias}\n" + "".join(f"  {name} {value}\n" for name, value in options.items())


def known_hosts(alias: str, identity: Identity) -> str:
    """The one line of known_hosts (sshd(8)) that names the injected host key."""
    kind, key = identity.host_public.split()[:2]
    return f"{alias} {kind} {key}\n"


def _quoted(path: Path) -> str:
    """A path as an ssh_config argument: in double quotes, and `%` doubled since ssh expands tokens in these."""
    text = str(path)
    if '"' in text or "\n" in text:
        raise HostError(f"{text!r}: a path with a quote or a line break cannot stand in an ssh configuration")
    return '"' + text.replace("%", "%%") + '"'


def login_user(ssh_config: Path, host: str) -> str:
    """The user whom `ssh -F ssh_config host` logs in as, by OpenSSH's own reading of the file (`ssh -G`)."""
    result = process.run([process.need("ssh", package="openssh-client"), "-G", "-F", ssh_config, host])
    return next(line.split(maxsplit=1)[1] for line in result.stdout.splitlines() if line.startswith("user "))
