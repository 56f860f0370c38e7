"""The OpenSSH client configuration of a machine, which ssh, sftp, ansible, testinfra and people share.

Its values may come from records of other catalogs, so each is checked for its kind before it is written.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from baker.core import process
from baker.core.errors import HostError
from baker.core.model import Endpoint, Identity

# A UNIX socket path holds 108 bytes with its final NUL (unix(7)); ssh first binds the control path with 17 characters added.
LONGEST_CONTROL_PATH = 108 - 1 - 17

# What useradd(8) on Debian allows by default, and the names of Windows and directory services: no space, no quote, no leading dash.
USERNAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,63}")
HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:%-]{0,254}|::[0-9A-Fa-f:]*")  # a name, an address, or an address with its zone

# After this many unanswered messages at this interval (seconds), ssh considers the connection lost.
ALIVE_INTERVAL = 15
ALIVE_COUNT = 8


def ssh_config(alias: str, endpoint: Endpoint, identity: Identity, *, known_hosts: Path, control_path: Path) -> str:
    """The text of the configuration, ssh_config(5). HostError for a value that cannot be written into one.

    ssh offers only the build's key and accepts only the injected host key. `ControlMaster no` is on purpose: clients share the master
    connection that bake holds, and no client can become a master that would outlive the build.
    """
    if len(os.fsencode(control_path)) > LONGEST_CONTROL_PATH:
        hint = "set BAKE_HOME or TMPDIR to a shorter directory"
        message = f"{control_path} is too long for a socket path: the limit is {LONGEST_CONTROL_PATH} bytes"
        raise HostError(message, hint=hint, code="host.path-too-long")
    options = {
        "HostName": _checked(endpoint.host, HOST, "a host"),
        "Port": str(endpoint.port),
        "User": _checked(identity.username, USERNAME, "a user"),
        "HostKeyAlias": _checked(alias, HOST, "a host"),
        "IdentityFile": _quoted(identity.client_key),
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "UserKnownHostsFile": _quoted(known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "HostKeyAlgorithms": "ssh-ed25519",
        # Prefer the key exchange that an emulated guest computes fast: keys live for one build, and the connection is on loopback.
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
        options["ProxyCommand"] = _one_line(endpoint.proxy_command)  # a shell command line, quoted where it is composed
    return f"Host {alias}\n" + "".join(f"  {name} {value}\n" for name, value in options.items())


def known_hosts(alias: str, identity: Identity) -> str:
    """The one line of known_hosts (sshd(8)) that names the injected host key."""
    kind, key = identity.host_public.split()[:2]
    return f"{alias} {kind} {key}\n"


def _quoted(path: Path) -> str:
    """A path as an ssh_config argument: in double quotes, with `%` doubled, because ssh expands `%` tokens in paths."""
    text = _one_line(str(path))
    if '"' in text:
        raise HostError(f"{text!r}: a path with a quote cannot be written into an ssh configuration", code="host.unusable-path")
    return '"' + text.replace("%", "%%") + '"'


def _checked(text: str, form: re.Pattern[str], what: str) -> str:
    """Return `text` if it matches `form`, else raise HostError. Such a name needs no quotes and cannot begin another option or line."""
    if not form.fullmatch(text):
        raise HostError(
            f"{text!r} is not the name of {what}", hint="it comes from the template or the record of the image", code="ssh.bad-name"
        )
    return text


def _one_line(text: str) -> str:
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise HostError(f"{text!r} has a control character, which an ssh configuration cannot hold", code="ssh.control-character")
    return text


def login_user(ssh_config: Path, host: str) -> str:
    """The user name with which `ssh -F ssh_config host` logs in, as `ssh -G` reports it."""
    result = process.run([process.need("ssh", package="openssh-client"), "-G", "-F", ssh_config, host])
    return next(line.split(maxsplit=1)[1] for line in result.stdout.splitlines() if line.startswith("user "))
