"""The identity of a machine for one boot: its own SSH keys, and the two ways in which the guest receives them.

A guest learns its host name, whose key may log in and its own SSH host key

* from systemd credentials (systemd.system-credentials(7)): images that bake bootstrapped read these, and
* from a NoCloud seed (cloud-init's documentation, "NoCloud"): cloud images read it.

A machine is given both, so that both kinds of image work without a setting. Private keys are in files of mode 0600 only, never on a
command line.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from baker.core import process
from baker.core.errors import NotFoundError
from baker.core.home import ensure
from baker.core.model import Identity

CLIENT_KEY = "client_key"
HOST_KEY = "host_key"
SEED_BYTES = 1 << 20
SEED_LABEL = "CIDATA"
LONGEST_HOSTNAME = 63  # RFC 1035, 2.3.4: one label


def make_identity(directory: Path, hostname: str, username: str) -> Identity:
    """Make a new identity with new ed25519 keys in `directory`. `hostname` is reduced to the characters and length of a host name."""
    ensure(directory)
    for name, comment in ((CLIENT_KEY, "bake"), (HOST_KEY, "bake-host")):
        path = directory / name
        path.unlink(missing_ok=True)
        argv: list[str | Path] = [
            process.need("ssh-keygen", package="openssh-client"),
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            comment,
            "-f",
            path,
        ]
        process.run(argv, what="make an SSH key")
    return Identity(_hostname(hostname), username, directory / CLIENT_KEY, directory / HOST_KEY)


def copy_identity(source: Path, directory: Path, hostname: str, username: str) -> Identity:
    """Copy the keys that `make_identity` made in `source` to `directory`. NotFoundError when they no longer exist."""
    try:
        for name in (CLIENT_KEY, HOST_KEY):
            for each in (name, f"{name}.pub"):
                shutil.copy(source / each, ensure(directory) / each)
    except FileNotFoundError as error:
        raise NotFoundError(f"the machine of {source.name} is no longer running", code="machine.not-running") from error
    return Identity(_hostname(hostname), username, directory / CLIENT_KEY, directory / HOST_KEY)


def credentials(identity: Identity) -> Mapping[str, bytes]:
    """The systemd credentials by name. systemd itself uses `ssh.authorized_keys.root`; a unit that bake installs in the images that it
    bootstraps uses the host key and the host name."""
    return {
        "ssh.authorized_keys.root": (identity.client_public + "\n").encode(),
        "bake.ssh_host_ed25519_key": identity.host_key.read_bytes(),
        "system.hostname": identity.hostname.encode(),
    }


def write_credentials(identity: Identity, directory: Path) -> Mapping[str, Path]:
    """Write one private file per credential, whose bytes QEMU's firmware configuration device passes to the guest."""
    return {name: _write_private(directory / f"{name}.credential", value) for name, value in credentials(identity).items()}


def write_seed(identity: Identity, path: Path) -> Path:
    """Write a NoCloud seed to `path` (mode 0600): a small FAT image labelled CIDATA with meta-data and user-data."""
    directory = ensure(path.with_name(path.name + ".d"))
    _write_private(path, b"")
    os.truncate(path, SEED_BYTES)
    process.run([process.need("mkfs.vfat", package="dosfstools"), "-n", SEED_LABEL, path], what="make the NoCloud seed")
    meta = {"instance-id": f"bake-{_instance(identity)}", "local-hostname": identity.hostname}
    _write_private(directory / "meta-data", json.dumps(meta).encode())
    _write_private(directory / "user-data", b"#cloud-config\n" + json.dumps(user_data(identity)).encode())
    mcopy = process.need("mcopy", package="mtools")
    process.run([mcopy, "-i", path, directory / "meta-data", directory / "user-data", "::"], what="fill the NoCloud seed")
    return path


def user_data(identity: Identity) -> dict[str, object]:
    """The cloud-config (as JSON, which is YAML): only what a login needs. The network keeps cloud-init's default, DHCP."""
    data: dict[str, object] = {
        "hostname": identity.hostname,
        "disable_root": False,
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": identity.host_key.read_text(), "ed25519_public": identity.host_public},
        "ssh_authorized_keys": [identity.client_public],  # of the image's default user and of root
    }
    if identity.username != "root":
        user = {"name": identity.username, "sudo": "ALL=(ALL) NOPASSWD:ALL", "shell": "/bin/bash", "lock_passwd": True}
        data["users"] = ["default", user | {"ssh_authorized_keys": [identity.client_public]}]
    return data


def _instance(identity: Identity) -> str:
    """An instance id that differs between identities: cloud-init runs its per-instance modules when it changes."""
    return re.sub(r"[^A-Za-z0-9]", "", identity.host_public.split()[1])[-20:].lower()


def _hostname(name: str) -> str:
    cleaned = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:LONGEST_HOSTNAME].strip("-")
    return cleaned or "bake"


def _write_private(path: Path, data: bytes) -> Path:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    return path
