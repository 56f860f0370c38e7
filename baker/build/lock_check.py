"""Compares a build with the lock file beside its template. A difference is an error with `--locked`, and a warning without."""

from __future__ import annotations

from collections.abc import Sequence

from baker.artifacts.ansible_content import of_build
from baker.artifacts.codecs import read_packages
from baker.build.artifacts import BuildArtifacts
from baker.build.job import Job
from baker.catalog.records import ImageRecord
from baker.core.errors import LockError, NotFoundError, Problem
from baker.core.model import AnsibleContent, PackageList, SourceImage
from baker.lockfile import check
from baker.lockfile.model import Lock, load_lock
from baker.sources.base import Context
from baker.template.epoch import lock_path


def check_inputs(job: Job) -> None:
    """Compare the inputs before the build makes anything. LockError with every difference from the lock. The source is compared if it is on
    this host."""
    if not job.options.locked:
        return
    services, template = job.services, job.template
    lock = load_lock(lock_path(template.path))
    builder = job.builder if template.builder.publishes else None
    context = Context.for_peek(services.home, services.store, services.catalog, template.path.parent, builder)
    source: SourceImage | None = None
    problems: list[Problem] = []
    try:
        source = None if job.options.pull else services.source(template.source).peek(template.source, context)
    except NotFoundError as error:
        problems.append(
            Problem(
                str(lock_path(template.path)), 0, 0, f"the source is not available: {error.message}", error.hint, code="lock.source-missing"
            )
        )
    problems += check.before_build(template, lock, source)
    if problems:
        raise LockError(problems)


def check_source(job: Job, source: SourceImage) -> None:
    """Compare the source after it was fetched. LockError when it is not the pinned one."""
    lock = _lock(job) if job.options.locked else None
    if lock and (problems := check.source_problems(job.template, lock.images[job.template.name], source)):
        raise LockError(problems)


def check_made(job: Job, artifacts: BuildArtifacts) -> None:
    """Compare the packages and the Ansible content that a build installed with the lock. A difference is a LockError with `--locked`, and a
    warning without."""
    packages = artifacts.inspection.packages_after if artifacts.inspection else PackageList()
    _compare(job, packages, artifacts.ansible_content)


def _compare(job: Job, packages: PackageList, contents: Sequence[AnsibleContent]) -> None:
    lock = _lock(job)
    image = lock.images.get(job.template.name) if lock else None
    if image is None:
        return
    path = lock_path(job.template.path)
    problems = check.content_problems(path, image, contents) + check.package_problems(path, image, packages)
    if problems and job.options.locked:
        raise LockError(problems)
    if problems:
        shown = "".join(f"\n  {problem.message}" for problem in problems)
        job.report.warn(f"the image differs from {path.name}:{shown}", hint=f"bake lock {job.template.path.name} updates the lock")


def check_known(job: Job, image: ImageRecord) -> None:
    """Compare an existing image that the build reuses. LockError when its packages differ from the lock or are unknown."""
    if not job.options.locked:
        return
    build = job.services.catalog.build_of(image)
    digest = build.evidence.get("packages_after", "")
    if not digest or not job.services.store.has(digest):
        raise LockError(
            [
                Problem(
                    str(lock_path(job.template.path)),
                    0,
                    0,
                    f"the packages of image {image.id} are not on record",
                    "--force builds a new image",
                    code="lock.packages-unknown",
                )
            ]
        )
    with job.services.store.open(digest) as blob:
        _compare(job, read_packages(blob), of_build(build, job.services.store))


def _lock(job: Job) -> Lock | None:
    """Return the lock. Without `--locked`: None when there is none, or after a warning when it cannot be read."""
    path = lock_path(job.template.path)
    if not job.options.locked and not path.exists():
        return None
    try:
        return load_lock(path)
    except LockError as error:
        if job.options.locked:
            raise
        job.report.warn(f"the lock is not used: {error}")
        return None
