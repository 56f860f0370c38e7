"""Creates lock files (`bake lock`): finds or runs the builds for a lock, and compares it with the existing lock file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from baker.core.errors import LockError, NotFoundError
from baker.lockfile.changes import Change, changes
from baker.lockfile.model import Lock, load_lock
from baker.lockfile.write import Built, make_lock
from baker.plan.requests import BuildRequest
from baker.template.epoch import lock_path

if TYPE_CHECKING:
    from baker.catalog.catalog import Catalog
    from baker.catalog.records import ImageRecord
    from baker.plan.plan import Plan
    from baker.plan.requests import BuildResult
    from baker.store.base import BlobStore
    from baker.template.model import Template


class BuildApi(Protocol):
    """The part of the Python API that finds and runs the builds of a lock file."""

    @property
    def catalog(self) -> Catalog: ...
    @property
    def store(self) -> BlobStore: ...
    def load_request(self, request: BuildRequest) -> list[Template]: ...
    def plan(self, template: Template) -> Plan | None: ...
    def planned_image(self, plan: Plan) -> ImageRecord | None: ...
    def build(self, requests: Sequence[BuildRequest]) -> list[BuildResult]: ...


@dataclass(frozen=True)
class Locked:
    """The lock of a template file, and its changes from the existing one. `failed`: builds that failed; then there is no lock."""

    path: Path
    lock: Lock | None
    changes: tuple[Change, ...] = ()
    failed: tuple[BuildResult, ...] = ()


def lock(api: BuildApi, request: BuildRequest, *, update: bool, build: bool, say: Callable[[str], None]) -> Locked:
    """Return the lock of a template without writing it. With `update` every image is built, otherwise only those that the catalog lacks.
    NotFoundError when an image is missing and `build` is false."""
    templates = api.load_request(request)
    path = lock_path(templates[0].path)
    results: Sequence[BuildResult] = ()
    missing = templates if update else [each for each in templates if _image_build(api, each) is None]
    if missing and not build:
        names = ", ".join(f"{each.name} {each.version}" for each in missing)
        raise NotFoundError(
            f"the catalog has no image of the current {path.name.replace('.lock', '')}: {names}",
            hint="leave out --no-build",
            code="lock.no-image",
        )
    if missing:
        say(f"{'building again' if update else 'building first'}: {', '.join(each.name for each in missing)}")
        results = api.build([request])
        failed = tuple(each for each in results if each.exit_code)
        if failed:
            return Locked(path, None, failed=failed)
    made = {result.name: api.catalog.build_of(result.image) for result in results if result.image}
    built = []
    for template in templates:
        found = Built(template, made[template.name]) if template.name in made else _image_build(api, template)
        if found is None:
            raise NotFoundError(
                f"the build of {template.name} made no image of the current template",
                hint="do not change the template during the build",
                code="lock.template-changed",
            )
        built.append(found)
    new, old = make_lock(built, api.store), _old(path, say)
    if old is not None and (request.only or request.except_):  # the other images of the matrix are not changed
        new = new.model_copy(update={"images": dict(sorted({**old.images, **new.images}.items()))})
    return Locked(path, new, tuple(changes(old, new)))


def _old(path: Path, say: Callable[[str], None]) -> Lock | None:
    if not path.exists():
        return None
    try:
        return load_lock(path)
    except LockError as error:
        say(f"the existing lock cannot be read and is replaced: {error}")
        return None


def _image_build(api: BuildApi, template: Template) -> Built | None:
    """The newest image of the current template with its build; None if there is none."""
    plan = api.plan(template)
    image = api.planned_image(plan) if plan else None
    return Built(template, api.catalog.build_of(image)) if image else None
