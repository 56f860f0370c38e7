"""Whether a build is what its lock says: its inputs before anything is made, its packages once they are known."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from baker.core.digests import canonical, digest_of, file_digest
from baker.core.errors import Problem
from baker.core.model import AnsibleContent, Package, PackageList, SourceImage
from baker.lockfile.galaxy import locked as locked_contents
from baker.lockfile.galaxy import told as galaxy_told
from baker.lockfile.model import MAKE_ONE, Lock, LockedImage
from baker.plan.plan import digest_files, recorded_machine_spec
from baker.provision import registry
from baker.template.epoch import lock_path
from baker.template.model import Template

SECRET_HASH = re.compile(r"(\{\{secret \S+) [0-9a-f]{32}\}\}")  # keyed by a catalog: on another host it is another
MOST_PACKAGES = 20  # differences that are listed


def input_files(template: Template) -> dict[str, str]:
    """Every file besides the template itself that goes into its image or its tests -> digest; paths relative to the template."""
    base = template.path.parent
    found = {path: file_digest(path) for path in template.files if path != template.path}
    for step in template.provisioners:
        kind = registry.get(step.kind)
        found |= {step.base_dir / name: digest for name, digest in digest_files(kind.inputs(step.config, step.base_dir), step.base_dir)}
    for spec in template.verify:
        paths = [path if path.is_absolute() else spec.base_dir / path for path in spec.testinfra]
        found |= {spec.base_dir / name: digest for name, digest in digest_files(paths, spec.base_dir)}
    return {os.path.relpath(path, base): digest for path, digest in sorted(found.items())}


def inputs_digest(template: Template) -> str:
    """A digest of what the template says, besides files and source: builder, steps, their values. Secret values count by their names
    alone, so that the digest is the same on every host."""
    steps = [{"kind": step.kind, "config": step.config.model_dump(mode="json")} for step in template.provisioners]
    told = {
        "name": template.name,
        "builder": template.builder.kind,
        "shape": recorded_machine_spec(template),
        "reproducible": template.reproducible,
        "steps": steps,
    }
    return digest_of(SECRET_HASH.sub(r"\1}}", template.secrets.seal(canonical(told))))


def package_line(package: Package) -> str:
    return f"{package.name} {package.version} {package.architecture or '-'} {package.kind}"


def package_changes(locked: Iterable[str], found: Iterable[str]) -> list[tuple[str, str, str]]:
    """(name, version as locked, version as found) of each package that differs; "" where there is none."""
    before, after = _versions(locked), _versions(found)
    names = sorted(before.keys() | after.keys())
    return [(_title(key), before.get(key, ""), after.get(key, "")) for key in names if before.get(key) != after.get(key)]


def before_build(template: Template, lock: Lock, source: SourceImage | None) -> list[Problem]:
    """What of the template is not as its lock says. `source`: None while it is not on this host."""
    shown, again = str(lock_path(template.path)), f"`bake lock --update {template.path.name}`"
    found: list[Problem] = []

    def differs(message: str, hint: str) -> None:
        found.append(Problem(shown, 0, 0, message, hint))

    image = lock.images.get(template.name)
    if image is None:
        known = ", ".join(sorted(lock.images)) or "none"
        return [
            Problem(shown, 0, 0, f"there is no image {template.name!r} in it", f"it has: {known}; {MAKE_ONE.format(template.path.name)}")
        ]
    if image.version != template.version:
        differs(f"{template.name} is {template.version} now, and {image.version} in the lock", f"set `version` back, or {again}")
    if image.inputs != inputs_digest(template):
        differs("the template's steps, values or builder have changed since", f"undo the change, or {again}")
    if lock.epoch != template.epoch.seconds:
        differs(
            f"epoch is {template.epoch.seconds} for this build, and {lock.epoch} in the lock", "`epoch: N` stands at a line's beginning"
        )
    for name, locked, now in _file_changes(image.files, input_files(template)):
        what = "is new" if not locked else "is gone" if not now else "has changed"
        right = f"sha256 {locked[:12]}... is right, it has {now[:12]}..." if locked and now else f"{again} takes it in"
        differs(f"{name} {what}", right)
    return found + (source_problems(template, image, source) if source else [])


def source_problems(template: Template, image: LockedImage, source: SourceImage) -> list[Problem]:
    """Whether the source is the pinned one."""
    if source.digest == image.source.digest:
        return []
    message = f"the source is {source.title} {source.digest}, and {image.source.title} {image.source.digest} in the lock"
    hint = f"bring back the locked source, or `bake lock --update {template.path.name}`"
    return [Problem(str(lock_path(template.path)), 0, 0, message, hint)]


def package_problems(path: Path, image: LockedImage, found: PackageList) -> list[Problem]:
    """Each package of a built image that is not as in the lock; one problem when its packages cannot be compared with those of the lock."""
    if image.packages and not found.complete:
        return [Problem(str(path), 0, 0, f"the list of its packages is not complete: {'; '.join(found.unread)}")]
    changes = package_changes(image.packages, map(package_line, found.packages))
    problems = [Problem(str(path), 0, 0, told(change)) for change in changes[:MOST_PACKAGES]]
    if len(changes) > MOST_PACKAGES:
        problems.append(Problem(str(path), 0, 0, f"{len(changes) - MOST_PACKAGES} other packages differ too"))
    return problems


def content_problems(path: Path, image: LockedImage, found: Sequence[AnsibleContent]) -> list[Problem]:
    """Each role and collection that is not as in the lock."""
    problems = []
    for kind, contents in (("role", image.roles), ("collection", image.collections)):
        before = {each.name: each for each in contents}
        now = {each.name: each for each in locked_contents(found, kind)}
        for name in sorted(before.keys() | now.keys()):
            had, has = before.get(name), now.get(name)
            if had is None or has is None or had.digest != has.digest or had.version != has.version:
                was, is_ = galaxy_told(had) if had else "none", galaxy_told(has) if has else "none"
                problems.append(Problem(str(path), 0, 0, f"{kind} {name}: {was} in the lock, {is_} in the build"))
    return problems


def told(change: tuple[str, str, str]) -> str:
    name, locked, now = change
    return f"package {name}: {locked or 'none'} in the lock, {now or 'none'} in the image"


def _file_changes(locked: Mapping[str, str], now: Mapping[str, str]) -> list[tuple[str, str, str]]:
    names = sorted(locked.keys() | now.keys())
    return [(name, locked.get(name, ""), now.get(name, "")) for name in names if locked.get(name) != now.get(name)]


def _versions(lines: Iterable[str]) -> dict[tuple[str, str, str], str]:
    """Versions by name, architecture and kind; several of one name (kernels of an rpm system) as one text."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for line in lines:
        name, version, architecture, kind = line.split(" ")
        found.setdefault((name, architecture, kind), []).append(version)
    return {key: ", ".join(sorted(versions)) for key, versions in found.items()}


def _title(key: tuple[str, str, str]) -> str:
    name, architecture, _ = key
    return name if architecture in ("-", "all", "") or ":" in name else f"{name}:{architecture}"
