"""The recipe, from a template to a recorded image:

resolve -> plan -> reuse -> launch or restore -> provision -> seal -> capture -> normalize -> verify + inspect -> publish -> record

Every stage takes and returns frozen values. What exists outside of this process meanwhile is in the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass

from baker.build import lock_check, record, stages
from baker.build.job import Job, open_job
from baker.build.provision import provision_and_capture, provision_until
from baker.build.services import Services
from baker.catalog.records import ImageRecord
from baker.core.workspace import new_id
from baker.plan.plan import Plan
from baker.plan.requests import BuildOptions
from baker.template.model import Template


@dataclass(frozen=True)
class Outcome:
    """The result of a build: a new image, one that the catalog had already, or none where the build was to stop after a step."""

    build_id: str
    image: ImageRecord | None
    unchanged: bool
    seconds: float


def bake(template: Template, options: BuildOptions, services: Services) -> Outcome:
    """Bake one image. BakeError when that fails: nothing half-made is left, and the failed build is on record."""
    with open_job(template, options, services, new_id()) as job, stages.failures_on_record(job):
        stages.announce(job)
        lock_check.check_inputs(job)
        source = stages.resolve(job)
        lock_check.check_source(job, source)
        plan = stages.plan(job, source)
        if job.layer_options.last:
            provision_until(job, plan)
            record.record_stopped(job)
            stages.announce_stop(job)
            return Outcome(job.id, None, False, job.seconds)
        with services.leases.exclusive(f"locks/{plan.fingerprint}", on_wait=lambda: stages.report_waiting(job)):
            known = stages.reuse(job, plan)
            if known:
                lock_check.check_known(job, known)
                stages.verify_again(job, plan, known)
            image = known or make(job, plan)
        stages.post_process(job, image)
        stages.announce_end(job, image, unchanged=known is not None)
        return Outcome(job.id, image, known is not None, job.seconds)


def make(job: Job, plan: Plan) -> ImageRecord:
    """Make a new image. Its record is the commit point: before it there is no image, after it there is one."""
    stages.check(job, plan)
    with stages.products(job) as products:
        captured = stages.normalize(job, plan, provision_and_capture(job, plan, products))
        outcome = stages.verify_and_inspect(job, plan, captured)
        artifacts = job.artifacts.snapshot()
        lock_check.check_made(job, artifacts)
        published = stages.publish(job, captured, products)
        return record.record(job, plan, published, outcome, artifacts)
