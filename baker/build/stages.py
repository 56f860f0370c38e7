"""The stages of the recipe (recipe.py), each a function from frozen values to frozen values."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

from baker.build import record
from baker.build.boot import build_request, launched
from baker.build.inspect import inspect, warn_of_unread, write_changes
from baker.build.job import Job
from baker.build.values import Captured, Inspection, VerifyOutcome
from baker.catalog.records import BuildRecord, ImageRecord
from baker.core.disk_space import FULL, host_error
from baker.core.errors import BakeError, BuildError, Interrupted, NotFoundError, VerifyError
from baker.core.events import BuildFinished, BuildStarted, Planned
from baker.core.model import Disk, SourceImage
from baker.core.resources import Resources
from baker.disks.ext4.reader import UnsupportedFilesystem
from baker.layers.policy import must_run
from baker.machines.base import Publisher
from baker.machines.media import media_of
from baker.plan.plan import Plan, make_plan, verify_key
from baker.sources.base import Context


def announce(job: Job) -> None:
    """Report the start of a build."""
    template = job.template
    steps = tuple(step.name for step in template.provisioners)
    job.report.sink.emit(BuildStarted(build=job.id, template=str(template.path), name=template.name, version=template.version, steps=steps))


def announce_end(job: Job, image: ImageRecord, *, unchanged: bool) -> None:
    """Report the end of a build with its image."""
    job.report.sink.emit(
        BuildFinished(
            build=job.id,
            name=image.name,
            status="unchanged" if unchanged else "built",
            seconds=job.seconds,
            image=image.id,
            version=image.version,
            digest=image.digest,
            fingerprint=image.fingerprint,
            size=image.size,
            verified=image.verified,
            timings=dict(job.events.timings),
        )
    )


def announce_stop(job: Job, status: Literal["stopped", "tried"] = "stopped") -> None:
    """Report the end of a build that makes no image, because it stops after a step or is a test run."""
    job.report.sink.emit(
        BuildFinished(
            build=job.id,
            name=job.template.name,
            version=job.template.version,
            status=status,
            seconds=job.seconds,
            timings=dict(job.events.timings),
        )
    )


def announce_failure(job: Job, error: BaseException, status: Literal["interrupted", "failed"], *, logged: bool = True) -> None:
    """Report the end of a build that failed. `logged`: whether it is on record."""
    job.report.sink.emit(
        BuildFinished(
            build=job.id,
            name=job.template.name,
            version=job.template.version,
            status=status,
            seconds=job.seconds,
            error="\n".join([str(error), *getattr(error, "__notes__", ())]),
            code=getattr(error, "code", "internal"),
            timings=dict(job.events.timings),
            logged=logged,
        )
    )


def report_waiting(job: Job) -> None:
    """Report that another build holds the lease on this image."""
    job.report.info("another build is making the same image: waiting for it")


@contextmanager
def failures_on_record(job: Job) -> Iterator[None]:
    """Record a build that fails, with its log, and raise its error."""
    try:
        yield
    except (Exception, Interrupted, KeyboardInterrupt) as caught:
        full_disk = isinstance(caught, OSError) and caught.errno in FULL
        error = host_error(caught, job.services.home.state) if isinstance(caught, OSError) and full_disk else caught
        interrupted = isinstance(error, (Interrupted, KeyboardInterrupt))
        status: Literal["interrupted", "failed"] = "interrupted" if interrupted else "failed"
        try:
            if not on_record(job):
                record.record_failure(job, error, status)
        except (BakeError, OSError) as second:
            error.add_note(f"the failed build could not be recorded: {second}")
        announce_failure(job, error, status)
        if error is caught:
            raise
        raise error from caught


def resolve(job: Job) -> SourceImage:
    """Resolve the source to an exact image, which is built or downloaded if it is not on this host."""
    services, template = job.services, job.template
    source = services.source(template.source)
    context = Context(
        home=services.home,
        store=services.store,
        catalog=services.catalog,
        base_dir=template.path.parent,
        scratch=job.scratch,
        ledger=job.ledger,
        report=job.report,
        builder=job.builder,
    )
    with job.report.stage("resolve"):
        found = None if job.options.pull else source.peek(template.source, context)
        found = found or source.fetch(template.source, context)
        job.report.info(f"source: {found.title} {found.digest}")
    return found


def plan(job: Job, source: SourceImage) -> Plan:
    """Plan the steps with their content keys."""
    made = make_plan(job.template, source)
    facts = {"kind": source.kind, "title": source.title, "digest": source.digest, "parent": source.parent, "pins": dict(source.pins)}
    steps = tuple({"index": planned.index, "key": planned.key, "inputs": planned.inputs} for planned in made.steps)
    job.report.sink.emit(Planned(build=job.id, fingerprint=made.fingerprint, source=facts, steps=steps))
    return made


def reuse(job: Job, plan: Plan) -> ImageRecord | None:
    """Return the catalog's image with this fingerprint, name and version. None when it was not verified but should be, or when a step
    must run again."""
    if job.options.force or job.options.no_cache or job.layer_options.first:
        return None
    template = job.template
    image = job.services.catalog.by_fingerprint(plan.fingerprint, name=template.name, version=template.version)
    if image and not image.verified and template.verify and not job.options.skip_verify:
        job.report.info(f"image {image.id} has this fingerprint but was never verified: building a new one")
        return None
    if image and (reason := must_run(plan, ran(job.services.catalog.build_of(image)), job.services.clock.date())):
        job.report.info(f"image {image.id} has this fingerprint, but {reason}")
        return None
    if image and (reason := _why_missing(job, image)):
        job.report.info(f"image {image.id} has this fingerprint, but {reason}: building a new one")
        return None
    if image:
        job.services.catalog.check_usable(image, "again for this template (--force builds a new one)")
    return image


def _why_missing(job: Job, image: ImageRecord) -> str:
    """Why an image is no longer available where its builder published it; "" if it is available."""
    if isinstance(job.builder, Publisher):
        try:
            media_of(image, job.builder, job.services.catalog, job.services.store)
        except NotFoundError as error:
            return error.message
    return ""


def verify_again(job: Job, plan: Plan, image: ImageRecord) -> None:
    """Run the template's tests on an existing image, unless it has passed the same tests: tests are not part of the fingerprint.
    VerifyError when one fails; the image is not changed."""
    template = job.template
    if job.options.skip_verify or not template.verify or job.services.catalog.was_verified(plan.fingerprint, verify_key(template)):
        return
    job.report.info(f"image {image.id} has this fingerprint, but the tests have changed: running them")
    verdict = verify(
        job,
        plan,
        Captured(media_of(image, job.builder, job.services.catalog, job.services.store)),
        f"image {image.id}, which passed other tests before, does not pass the tests of the template",
    )
    if verdict.report:
        record.record_verified(job, verdict.report, verdict.facts)


def ran(build: BuildRecord) -> dict[str, float]:
    """Key of a step -> the time at which it ran, in seconds since the epoch."""
    return {step.key: step.ran for step in build.steps}


def check(job: Job, plan: Plan) -> None:
    """Check the prerequisites where the machines run, before anything is created there."""
    if isinstance(job.builder, Publisher):
        with job.report.stage("check"):
            job.builder.check(plan.source, job.image, job.id, job.report)


@contextmanager
def products(job: Job) -> Iterator[Resources]:
    """Track the resources outside of this host that the image consists of. They are released when the build fails, and kept when the image
    is on record."""
    resources = Resources(job.ledger)
    try:
        yield resources
    except BaseException as error:
        try:
            if on_record(job):  # a signal arrived right after the commit
                resources.keep()
        except BakeError as second:  # unknown now; `bake sweep` decides later
            error.add_note(f"clean-up: {second}")
            raise error from None
        resources.release_after(error)
        raise
    resources.keep()


def on_record(job: Job) -> bool:
    """Whether the build's image is in the catalog."""
    try:
        return job.services.catalog.build(job.id).status == "built"
    except NotFoundError:
        return False


def publish(job: Job, captured: Captured, products: Resources) -> Captured:
    """Publish a verified image, if the builder stores its images outside of this host."""
    if not isinstance(job.builder, Publisher):
        return captured
    with job.report.stage("publish"):
        publications = job.builder.publish(captured.media, job.image, job.id, products, job.report)
    return replace(captured, publications=publications)


def normalize(job: Job, plan: Plan, captured: Captured) -> Captured:
    """Normalize the captured disk if the template is reproducible, so that equal content has equal bytes. If that is not possible, the disk
    is not changed, and the reason is recorded."""
    if not job.template.reproducible or not isinstance(captured.media, Disk):
        return captured
    from baker.disks.normalize import normalize

    with job.report.stage("normalize"):
        try:
            normalized = normalize(
                captured.media, plan.source.disk, job.scratch / "normalized.qcow2", epoch=job.template.epoch.seconds, scratch=job.scratch
            )  # fmt: skip
        except UnsupportedFilesystem as error:
            job.report.warn(f"the image is not reproducible bit by bit: {error.message}")
            return replace(captured, not_normalized=error.message)
    return replace(captured, media=normalized.disk, normalized=normalized, before_normalizing=captured.media)


def verify_and_inspect(job: Job, plan: Plan, captured: Captured) -> VerifyOutcome:
    """Verify the captured image; at the same time inspect its disk on this host. VerifyError when a test fails."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="inspect") as pool:
        inspection = pool.submit(_inspect, job, plan, captured)
        outcome = verify(job, plan, captured)
    job.artifacts.set_inspection(inspection.result())
    return outcome


def _inspect(job: Job, plan: Plan, captured: Captured) -> Inspection:
    inspection = inspect(captured, plan.source, job.scratch)
    warn_of_unread(job.report, inspection)
    try:
        inspection = replace(inspection, changes=write_changes(captured, plan.source, inspection.manifest, job.scratch))
    except (BakeError, OSError) as error:
        reason = error.message if isinstance(error, BakeError) else error
        job.report.info(f"the changes of the build are not recorded: {reason}")
    if captured.before_normalizing:
        captured.before_normalizing.path.unlink()
    return inspection


def verify(job: Job, plan: Plan, captured: Captured, consequence: str = "the image is not registered") -> VerifyOutcome:
    """Boot the captured image with a new identity and new keys, as a user would, and run its tests. VerifyError when one fails.
    `consequence` is the end of the error's message: what the failure means for the image."""
    template = job.template
    if job.options.skip_verify:
        return VerifyOutcome("skipped")
    if not template.verify:
        return VerifyOutcome("none")
    with job.report.stage("verify"):
        request = build_request(job, "verify", captured.media, plan.machine_spec, plan.source.ssh_username)
        timeout = template.communicator.ssh_timeout
        with launched(job.builder, request, job.services.connect, timeout=timeout, artifacts=job.artifacts) as verified:
            machine, communicator = verified.machine, verified.communicator
            report = job.services.test(
                template.verify,
                communicator.ssh_config,
                communicator.host,
                scratch=job.scratch / "tests",
                report=job.report,
                mask=template.secrets.mask,
            )
            if not report.passed and job.options.keep_failed:
                machine.keep()
                job.ledger.keep("failed verification")
                job.report.warn(f"the failed machine is left running: ssh -F {communicator.ssh_config} {communicator.host}")
            facts = machine.facts
    verdict = VerifyOutcome("passed", report, facts)
    job.artifacts.set_junit(report.junit)
    if not report.passed:
        failed = [outcome for outcome in report.outcomes if outcome.outcome in ("failed", "error")]
        names = "".join(f"\n  {outcome.name}: {(outcome.message or outcome.outcome).splitlines()[0]}" for outcome in failed)
        raise VerifyError(
            f"{len(failed)} of {len(report.outcomes)} tests failed, so {consequence}{names}",
            hint=f"bake logs {job.id} shows the whole report; --keep-failed leaves the machine running for inspection",
        )
    return verdict


def post_process(job: Job, image: ImageRecord) -> None:
    """Run the template's post-processors on the registered image. When one fails, the image remains registered."""
    for spec in job.template.post_processors:
        from baker.publish.export import export

        destination = job.template.path.parent / (spec.path or f"{image.name}-{image.version}.{spec.format}")
        with job.report.stage("export", str(destination)):
            try:
                export(job.services.store, image, spec.format, destination, compress=spec.compress, report=job.report, overwrite=True)
            except BakeError as error:
                raise BuildError(
                    f"image {image.id} is registered, but its export failed: {error.message}", hint=error.hint, code=error.code
                ) from error
