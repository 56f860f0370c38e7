"""Template -> Plan: ordered steps, each with a content key that covers everything that can change its outcome.

A key is the SHA-256 of a canonical JSON document (RFC 8785's rules as far as they matter here: sorted names, no white space, UTF-8)
that holds the key of the step before, the resolved step, and the bytes and modes of every file that it reads. Secret values are in it
as keyed hashes. What cannot change the outcome is left out: names of templates and steps, descriptions, timeouts, comments, the
steps after it. What a step can see of the machine, and what the image is besides its content, the builder's configuration says.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from baker.core.digests import canonical, digest_of, file_digest
from baker.core.model import MachineSpec, SourceImage
from baker.core.secrets import Secrets
from baker.provision import registry
from baker.template.model import Step, Template

KEY_FORMAT = 2  # part of every key: raise it when the meaning of a key changes
SEAL_FORMAT = 1  # part of every fingerprint: raise it when sealing leaves other images


@dataclass(frozen=True)
class PlannedStep:
    """A step with its content key (64 hex digits) and the SHA-256 of each file that it reads, by path relative to its base."""

    index: int  # from 1
    step: Step
    key: str
    files: Mapping[str, str]
    config: Mapping[str, Any]  # as in the key: secrets as keyed hashes

    @property
    def inputs(self) -> dict[str, Any]:
        """What the key is made of, besides the key of the step before."""
        return {"kind": self.kind, "config": dict(self.config), "files": dict(self.files)}

    @property
    def name(self) -> str:
        return self.step.name

    @property
    def kind(self) -> str:
        return self.step.kind


@dataclass(frozen=True)
class Plan:
    """What a build will do. `fingerprint` (64 hex digits) identifies the image that results: same fingerprint, same image."""

    template: Template
    source: SourceImage
    machine_spec: MachineSpec
    root_key: str
    steps: tuple[PlannedStep, ...]
    fingerprint: str

    @property
    def inputs(self) -> dict[str, str]:
        """The SHA-256 of every file that the build reads, by path, for the record."""
        found = {str(path): file_digest(path) for path in (self.template.path, *self.template.files)}
        for planned in self.steps:
            found.update({str(planned.step.base_dir / name): digest for name, digest in planned.files.items()})
        return found


def make_plan(template: Template, source: SourceImage) -> Plan:
    """Plan `template` on exactly `source`. Reads every file that a step names, and starts nothing."""
    builder = template.builder
    machine_spec = builder.machine_spec()
    if builder.starts_at_epoch():
        machine_spec = replace(machine_spec, clock=template.epoch.seconds)
    machine = builder.machine_key(machine_spec)
    root_key = digest_of({"format": KEY_FORMAT, "source": source.digest, "builder": builder.kind, "machine": machine})
    steps = tuple(_planned(template, root_key))
    last = steps[-1].key if steps else root_key
    ends = {"parent": last, "seal": SEAL_FORMAT, "reproducible": template.reproducible}
    image = builder.image_key()
    fingerprint = digest_of(ends | ({"image": image} if image else {}))
    return Plan(template=template, source=source, machine_spec=machine_spec, root_key=root_key, steps=steps, fingerprint=fingerprint)


def verify_key(template: Template) -> str:
    """A digest of the image's tests: their files and values. "" when there are none."""
    if not template.verify:
        return ""
    suites = []
    for spec in template.verify:
        paths = [path if path.is_absolute() else spec.base_dir / path for path in spec.testinfra]
        values = json.loads(template.secrets.seal(canonical(spec.vars)))
        suites.append({"files": dict(digest_files(paths, spec.base_dir)), "vars": values, "bundle": spec.bundle})
    return digest_of(suites)


def recorded_machine_spec(template: Template) -> dict[str, Any]:
    """What the builder's configuration puts on record about the machine, with keyed hashes in place of secret values."""
    return {name: _sealed(value, template.secrets) for name, value in template.builder.to_record().items()}


def _sealed(value: Any, secrets: Secrets) -> Any:
    if isinstance(value, str):
        return secrets.seal(value)
    if isinstance(value, Mapping):
        return {secrets.seal(key): _sealed(each, secrets) for key, each in value.items()}
    return [_sealed(each, secrets) for each in value] if isinstance(value, list | tuple) else value


def _planned(template: Template, root_key: str) -> Iterator[PlannedStep]:
    # the epoch is not in the root key: a machine that has just booted from the source does not know it yet
    parent = digest_of({"parent": root_key, "epoch": template.epoch.seconds})
    for index, step in enumerate(template.provisioners, start=1):
        kind = registry.get(step.kind)
        files = dict(digest_files(kind.inputs(step.config, step.base_dir), step.base_dir))
        config = json.loads(template.secrets.seal(canonical(step.config.model_dump(mode="json"))))
        parent = digest_of({"parent": parent, "kind": step.kind, "config": config, "files": files})
        yield PlannedStep(index=index, step=step, key=parent, files=files, config=config)


def digest_files(paths: Iterable[Path], base_dir: Path) -> Iterator[tuple[str, str]]:
    """(name, digest) of each file below `paths`, sorted; a name is relative to `base_dir` when the file is below it.

    The digest covers type, permission bits, and content or link target; of a directory its name and mode.
    """
    for path in sorted(set(paths)):
        for found in [path, *sorted(path.rglob("*"))] if path.is_dir() and not path.is_symlink() else [path]:
            name = found.relative_to(base_dir) if found.is_relative_to(base_dir) else found
            yield str(name), _entry_digest(found)


def as_recorded(path: Path, digest: str) -> str:
    """The digest of what is at `path` now, computed as the recorded `digest` was: of its bytes, or as a step's input. "" when nothing
    is there."""
    if not path.exists() and not path.is_symlink():
        return ""
    plain = file_digest(path) if path.is_file() else ""
    return plain if plain == digest else _entry_digest(path)


def _entry_digest(path: Path) -> str:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return digest_of({"link": str(path.readlink())})
    if stat.S_ISDIR(mode):
        return digest_of({"directory": stat.S_IMODE(mode)})
    return digest_of({"file": file_digest(path), "mode": stat.S_IMODE(mode)})
