"""The source `debootstrap`: a bootable disk with a Debian root file system, cached by its inputs.

    cache/bootstraps/<key>.json   {"digest", "blob", "virtual_size", "created", "epoch", "suite", "packages": {name: version}}

The disk itself is a blob in the store. The key covers the inputs that bake controls (the template's `source`, the files in machine/, the
disk layout), but not the present content of the mirror. A template therefore keeps its source until the user asks for a fresh one;
the digest identifies the disk that was used.
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
    """Bootstrap Debian."""

    def peek(self, spec: DebootstrapSource, context: Context) -> SourceImage | None:
        """The disk of an earlier bootstrap with the same inputs, if the store still has it."""
        key = inputs_key(spec, context.base_dir)
        entry = _index(context).read(key)
        disk = import_disk.disk_of(entry, context.store)
        return _source(spec, key, entry, disk) if entry and disk else None

    def fetch(self, spec: DebootstrapSource, context: Context) -> SourceImage:
        """Bootstrap now, with the newest packages of the suite. If another process is bootstrapping the same inputs, use its result.

        Raises SourceError with mmdebstrap's error messages, HostError when this host lacks a tool.
        """
        key = inputs_key(spec, context.base_dir)
        waited: list[str] = []

        def on_wait() -> None:
            waited.append(key)
            context.report.info(f"another process is bootstrapping {spec.suite}: waiting for it")

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
        raise SourceError(
            f"cannot make a disk of the bootstrapped system: {error.message}", hint=error.hint, code="source.disk-failed"
        ) from error
    tar.unlink()
    context.report.info("importing the disk into the store")
    # mke2fs's layout depends on its version and on the order in which it reads directories: normalize it
    normalized = normalize(Disk(raw, "raw", made.size), None, work / "normalized.qcow2", epoch=epoch, scratch=work)
    entry = import_disk.to_store(normalized.disk, context, work) | _facts(spec, packages, epoch)
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
    """The source of an index entry. Its pins contain a digest of the package list, which depends on the mirror's content that day."""
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
    """A key (64 hex digits) of all inputs that bake controls. SourceError when the keyring is missing."""
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
            f"the keyring {path} does not exist",
            hint="`keyring:` names a file of public keys, such as those in /usr/share/keyrings",
            code="source.keyring-missing",
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
