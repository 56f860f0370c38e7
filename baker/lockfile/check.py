"""Compare a build with its lock file: its inputs before anything is created, its packages once they are known."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from baker.core.digests import canonical, digest_of, file_digest
from baker.core.errors import Problem
from baker.core.model import AnsibleContent, Package, PackageList, SourceImage
from baker.lockfile.galaxy import describe
from baker.lockfile.galaxy import locked as locked_contents
from baker.lockfile.model import MAKE_ONE, Lock, LockedImage
from baker.plan.plan import digest_files, recorded_machine_spec
from baker.provision import registry
from baker.template.epoch import lock_path
from baker.template.model import Template

SECRET_HASH = re.compile(r"(\{\{secret \S+) [0-9a-f]{32}\}\}")  # keyed by a catalog, so it differs between hosts
MOST_PACKAGES = 20  # number of differences that are listed


def input_files(template: Template) -> dict[str, str]:
    """The digests of all files, besides the template, that the image or its tests depend on, by path relative to the template."""
    base = template.path.parent
    digests = {path: file_digest(path) for path in template.files if path != template.path}
    for step in template.provisioners:
        kind = registry.get(step.kind)
        digests |= {step.base_dir / name: digest for name, digest in digest_files(kind.inputs(step.config, step.base_dir), step.base_dir)}
    for spec in template.verify:
        paths = [path if path.is_absolute() else spec.base_dir / path for path in spec.testinfra]
        digests |= {spec.base_dir / name: digest for name, digest in digest_files(paths, spec.base_dir)}
    return {os.path.relpath(path, base): digest for path, digest in sorted(digests.items())}


def inputs_digest(template: Template) -> str:
    """The digest of builder, steps and their values; files and source are locked separately. Secret values count only by their names, so
    that the digest is the same on every host."""
    steps = [{"kind": step.kind, "config": step.config.model_dump(mode="json")} for step in template.provisioners]
    inputs = {
        "name": template.name,
        "builder": template.builder.kind,
        "shape": recorded_machine_spec(template),
        "reproducible": template.reproducible,
        "steps": steps,
    }
    return digest_of(SECRET_HASH.sub(r"\1}}", template.secrets.seal(canonical(inputs))))


def package_line(package: Package) -> str:
    return f"{package.name} {package.version} {package.architecture or '-'} {package.kind}"


def package_changes(locked: Iterable[str], found: Iterable[str]) -> list[tuple[str, str, str]]:
    """(name, locked version, found version) of each package that differs; a version is "" if the package is missing."""
    before, after = _versions(locked), _versions(found)
    names = sorted(before.keys() | after.keys())
    return [(_title(key), before.get(key, ""), after.get(key, "")) for key in names if before.get(key) != after.get(key)]


def before_build(template: Template, lock: Lock, source: SourceImage | None) -> list[Problem]:
    """Every difference between the template and its lock. `source` is None while it is not on this host."""
    shown, again = str(lock_path(template.path)), f"`bake lock --update {template.path.name}`"
    problems: list[Problem] = []

    def differs(message: str, hint: str, code: str) -> None:
        problems.append(Problem(shown, 0, 0, message, hint, code=code))

    image = lock.images.get(template.name)
    if image is None:
        known = ", ".join(sorted(lock.images)) or "none"
        hint = f"it has: {known}; {MAKE_ONE.format(template.path.name)}"
        return [Problem(shown, 0, 0, f"the lock file has no image {template.name!r}", hint, code="lock.no-such-image")]
    if image.version != template.version:
        message = f"the version of {template.name} is {template.version} now, and {image.version} in the lock"
        differs(message, f"restore `version`, or {again}", code="lock.version-changed")
    if image.inputs != inputs_digest(template):
        message = "the steps, values or builder of the template have changed since it was locked"
        differs(message, f"undo the change, or {again}", code="lock.inputs-changed")
    if lock.epoch != template.epoch.seconds:
        message = f"the epoch of this build is {template.epoch.seconds}, and {lock.epoch} in the lock"
        differs(message, "`epoch: N` must start at the beginning of a line in the lock file", code="lock.epoch-changed")
    for name, locked, now in _file_changes(image.files, input_files(template)):
        change = "is new" if not locked else "was removed" if not now else "has changed"
        hint = f"the lock has sha256 {locked[:12]}..., the file has {now[:12]}..." if locked and now else f"undo the change, or {again}"
        differs(f"{name} {change}", hint, code="lock.file-changed")
    return problems + (source_problems(template, image, source) if source else [])


def source_problems(template: Template, image: LockedImage, source: SourceImage) -> list[Problem]:
    """The problem of a source that differs from the locked one, if it does."""
    if source.digest == image.source.digest:
        return []
    message = f"the source is {source.title} {source.digest}, and {image.source.title} {image.source.digest} in the lock"
    hint = f"restore the locked source, or `bake lock --update {template.path.name}`"
    return [Problem(str(lock_path(template.path)), 0, 0, message, hint, code="lock.source-changed")]


def package_problems(path: Path, image: LockedImage, built: PackageList) -> list[Problem]:
    """A problem for each package of a built image that differs from the lock, or one if the list of packages is not complete."""
    if image.packages and not built.complete:
        return [Problem(str(path), 0, 0, f"the list of packages is not complete: {'; '.join(built.unread)}", code="lock.packages-unknown")]
    changes = package_changes(image.packages, map(package_line, built.packages))
    problems = [Problem(str(path), 0, 0, package_message(change), code="lock.package-changed") for change in changes[:MOST_PACKAGES]]
    if len(changes) > MOST_PACKAGES:
        message = f"{len(changes) - MOST_PACKAGES} other packages differ too"
        problems.append(Problem(str(path), 0, 0, message, code="lock.package-changed"))
    return problems


def content_problems(path: Path, image: LockedImage, built: Sequence[AnsibleContent]) -> list[Problem]:
    """A problem for each role and collection that differs from the lock."""
    problems = []
    for kind, contents in (("role", image.roles), ("collection", image.collections)):
        before = {each.name: each for each in contents}
        now = {each.name: each for each in locked_contents(built, kind)}
        for name in sorted(before.keys() | now.keys()):
            had, has = before.get(name), now.get(name)
            if had is None or has is None or had.digest != has.digest or had.version != has.version:
                message = f"{kind} {name}: {describe(had) if had else 'none'} in the lock, {describe(has) if has else 'none'} in the build"
                problems.append(Problem(str(path), 0, 0, message, code="lock.content-changed"))
    return problems


def package_message(change: tuple[str, str, str]) -> str:
    name, locked, now = change
    return f"package {name}: {locked or 'none'} in the lock, {now or 'none'} in the image"


def _file_changes(locked: Mapping[str, str], now: Mapping[str, str]) -> list[tuple[str, str, str]]:
    names = sorted(locked.keys() | now.keys())
    return [(name, locked.get(name, ""), now.get(name, "")) for name in names if locked.get(name) != now.get(name)]


def _versions(lines: Iterable[str]) -> dict[tuple[str, str, str], str]:
    """Versions by name, architecture and kind; several versions of a package (kernels of an rpm system) as one text."""
    versions: dict[tuple[str, str, str], list[str]] = {}
    for line in lines:
        name, version, architecture, kind = line.split(" ")
        versions.setdefault((name, architecture, kind), []).append(version)
    return {key: ", ".join(sorted(versions)) for key, versions in versions.items()}


def _title(key: tuple[str, str, str]) -> str:
    name, architecture, _ = key
    return name if architecture in ("-", "all", "") or ":" in name else f"{name}:{architecture}"
