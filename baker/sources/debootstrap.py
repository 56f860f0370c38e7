"""The source `debootstrap`: a Debian root file system on a disk that boots by itself. Kept, and found again by its inputs.

    cache/bootstraps/<key>.json   {"digest", "blob", "virtual_size", "created", "suite", "packages": {name: version}}

The disk itself is a blob of the store. The key covers what we decide (the template's words, the files in machine/, the layout) and not
what the mirror has today: the same template goes on with the same source until somebody asks for a fresh one, and the digest says
which it was.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from baker.core.errors import SourceError
from baker.core.home import ensure
from baker.core.locks import exclusive
from baker.core.model import Disk, Package, SourceImage
from baker.core.process import CommandError
from baker.disks.normalize import normalize
from baker.sources import import_disk, layout, machine_files
from baker.sources.base import Context
from baker.sources.bootstrap import Request, bootstrap
from baker.sources.cache_index import Index
from baker.template.model import DebootstrapSource

KEY_FORMAT = 1


class Debootstrap:
    """Bootstraps Debian."""

    def peek(self, spec: DebootstrapSource, context: Context) -> SourceImage | None:
        """The disk that was bootstrapped from the same inputs before."""
        key = inputs_key(spec, context.base_dir)
        entry = _index(context).read(key)
        disk = import_disk.disk_of(entry, context.store)
        return _source(spec, key, entry, disk) if entry and disk else None

    def fetch(self, spec: DebootstrapSource, context: Context) -> SourceImage:
        """Bootstrap now, with the newest packages of the suite; what another process bootstraps meanwhile is waited for and taken.

        Raises SourceError with mmdebstrap's reason, HostError when this host lacks a tool.
        """
        key = inputs_key(spec, context.base_dir)
        waited: list[str] = []

        def on_wait() -> None:
            waited.append(key)
            context.report.info(f"another process bootstraps {spec.suite} now: waiting for it")

        with exclusive(_index(context).directory, key[:16], on_wait):
            found = self.peek(spec, context) if waited else None
            return found or _bootstrap(spec, key, context)


def _bootstrap(spec: DebootstrapSource, key: str, context: Context) -> SourceImage:
    layout.check_host()
    work = ensure(context.scratch / f"bootstrap-{key[:12]}")
    names = layout.Names.of(key)
    epoch = context.epoch or int(time.time())
    request = _request(spec, context.base_dir, names, epoch)
    context.report.info(f"bootstrapping {spec.suite}: {' '.join(request.packages)}")
    tar, raw = work / "root.tar", work / "disk.raw"
    packages = bootstrap(request, tar, scratch=work, ledger=context.ledger, on_line=context.report.output)
    early = machine_files.text(machine_files.EARLY_GRUB, names)
    try:
        made = layout.make_disk(tar, raw, names=names, early_config=early, scratch=work, epoch=epoch)
    except CommandError as error:
        raise SourceError(f"cannot make a disk of the bootstrapped system: {error.message}", hint=error.hint) from error
    tar.unlink()
    context.report.info("keeping the disk")
    # laid out by us once more: mke2fs's own layout depends on its version, and on the order in which a directory was read
    settled = normalize(Disk(raw, "raw", made.size), None, work / "settled.qcow2", epoch=epoch, scratch=work)
    entry = import_disk.take(settled.disk, context, work) | _facts(spec, packages, epoch)
    shutil.rmtree(work)
    _index(context).write(key, entry)
    disk = import_disk.disk_of(entry, context.store)
    assert disk is not None
    return _source(spec, key, entry, disk)


def _facts(spec: DebootstrapSource, packages: tuple[Package, ...], epoch: int) -> dict[str, Any]:
    return {
        "suite": spec.suite,
        "epoch": str(epoch),
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "packages": {package.name: package.version for package in packages},
    }


def _source(spec: DebootstrapSource, key: str, entry: Mapping[str, Any], disk: Disk) -> SourceImage:
    """`pins` has the digest of the package list: which versions the mirror had that day."""
    listed = json.dumps(entry.get("packages", {}), sort_keys=True).encode()
    pins = {
        "suite": spec.suite,
        "inputs": key,
        "created": str(entry.get("created", "")),
        "epoch": str(entry.get("epoch", "")),
        "packages": "sha256:" + hashlib.sha256(listed).hexdigest(),
    }
    title = f"debian {spec.suite} (debootstrap)"
    return SourceImage("debootstrap", title, str(entry["digest"]), disk, pins=pins, ssh_username="root", chain=(str(entry["blob"]),))


def _index(context: Context) -> Index:
    return Index(context.home.cache / "bootstraps")


def inputs_key(spec: DebootstrapSource, base_dir: Path) -> str:
    """A content key (64 hex digits) of everything of ours that shapes the result."""
    inputs: dict[str, Any] = {
        "format": KEY_FORMAT,
        "layout": layout.VERSION,
        "machine": machine_files.digest(),
        "architecture": platform.machine(),
        "spec": spec.model_dump(mode="json", exclude={"keyring"}),
        "keyring": hashlib.sha256(_keyring(spec, base_dir).read_bytes()).hexdigest() if spec.keyring else None,
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _keyring(spec: DebootstrapSource, base_dir: Path) -> Path:
    path = base_dir / Path(spec.keyring or "").expanduser()
    if not path.is_file():
        raise SourceError(
            f"the keyring {path} does not exist", hint="`keyring:` names a file of public keys, such as those in /usr/share/keyrings"
        )
    return path


def _request(spec: DebootstrapSource, base_dir: Path, names: layout.Names, epoch: int) -> Request:
    return Request(
        suite=spec.suite,
        packages=machine_files.packages(spec.packages),
        components=spec.components,
        variant=spec.variant,
        mirror=spec.mirror,
        keyring=_keyring(spec, base_dir) if spec.keyring else None,
        hostname=spec.hostname,
        names=names,
        epoch=epoch,
    )
