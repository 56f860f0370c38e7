"""Test runs (`bake test`), which make no image. They check that a template builds and passes its tests, or that steps are idempotent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatch

from baker.artifacts.trees import compare_trees
from baker.build import stages
from baker.build.change_tracking import ChangedInodes, key_of
from baker.build.job import Job, open_job
from baker.build.provision import build_machine, provision_and_capture, run_steps
from baker.build.services import Services
from baker.build.started import StartedMachine
from baker.build.tracker import Tracker
from baker.core.errors import BuildError, HostError
from baker.core.model import FileEntry
from baker.core.workspace import new_id
from baker.disks.manifest import file_manifest
from baker.machines.base import Publisher, SupportsPause
from baker.plan.plan import Plan
from baker.plan.requests import BuildOptions
from baker.template.model import Template

# paths that a running system writes by itself
NOISE = ("/var/log/*", "/tmp/*", "/var/tmp/*", "/run/*", "/var/cache/*", "/var/lib/apt/lists/*", "/var/lib/systemd/*", "*/.ansible/*")
SYNC_SECONDS = 120.0


@dataclass(frozen=True)
class RepeatedChange:
    """A path that the second run of a step changed. `what`: see baker.artifacts.trees.Difference."""

    path: str
    step: int
    name: str
    what: tuple[str, ...]


def test(template: Template, options: BuildOptions, services: Services, *, idempotent: bool) -> list[RepeatedChange]:
    """Test a template. With `idempotent`, return what the second run of its steps changed. A failure is recorded with its log."""
    with open_job(template, options, services, new_id()) as job, stages.failures_on_record(job):
        stages.announce(job)
        found = run_twice(job) if idempotent else []
        if not idempotent:
            build(job)
        stages.announce_stop(job, "tried")
        return found


def build(job: Job) -> None:
    """Build and verify without registering an image. VerifyError or BuildError when that fails."""
    if isinstance(job.builder, Publisher):
        kind = job.template.builder.kind
        raise BuildError(
            f"bake test makes no image, and the builder {kind} cannot test a machine without one",
            hint="bake build --skip-verify makes an image without testing it",
            code="test.needs-image",
        )
    plan = stages.plan(job, stages.resolve(job))
    with stages.products(job) as products:
        captured = stages.normalize(job, plan, provision_and_capture(job, plan, products))
        stages.verify(job, plan, captured, "it would not be registered")


def run_twice(job: Job) -> list[RepeatedChange]:
    """Run all steps, then run them again on the same machine. Returns what the second run changed. StepError when a step fails, HostError
    where the machine's disk cannot be read from this host."""
    builder = job.builder
    if not isinstance(builder, SupportsPause) or not builder.can_pause():
        raise HostError(
            "the disk of this template's machine cannot be read: that is possible only for machines of this host's own libvirt",
            hint="leave out --connect",
            code="test.no-disk-access",
        )
    plan = stages.plan(job, stages.resolve(job))
    with build_machine(job, plan) as build, build.start.connection:
        run_steps(job, build, plan.steps[build.start.depth :])
        before, _ = _tree(builder, build.start)
        second = Tracker(builder, job.report)
        again = replace(build, start=replace(build.start, changed_inodes=ChangedInodes()), observers=(second,))
        with job.report.stage("again"):
            run_steps(job, again, plan.steps)
        if second.changed is None:
            raise HostError(
                "the disk of the machine cannot be read from outside, so the changes of the second run are unknown",
                code="test.disk-unreadable",
            )
        after, keys = _tree(builder, build.start)
        return _changed(plan, before, after, keys, second.changed)


def _tree(builder: SupportsPause, start: StartedMachine) -> tuple[list[FileEntry], dict[str, tuple[int, int]]]:
    """List all files of the machine as it is now, and their inodes."""
    from baker.disks.rootfs import open_root

    start.communicator.run("sync", timeout=SYNC_SECONDS)
    with builder.paused_disk(start.machine) as disk:
        readable = start.readable(disk)
        with open_root(readable, replay=True) as root:
            return list(file_manifest(readable, replay=True)), {found.path: key_of(found) for found in root.walk()}


def _changed(
    plan: Plan, before: list[FileEntry], after: list[FileEntry], keys: dict[str, tuple[int, int]], changed: ChangedInodes
) -> list[RepeatedChange]:
    names = {planned.index: planned.name for planned in plan.steps}
    last = changed.last
    found = []
    for each in compare_trees(before, after):
        if set(each.what) <= {"time"} or any(fnmatch(each.path, pattern) for pattern in NOISE):
            continue
        place = each.path
        while keys.get(place) not in last and place != "/":  # a removed path, or one that moved with its directory: use the directory
            place = place.rpartition("/")[0] or "/"
        step = last.get(keys[place]) if place in keys else None
        if step is not None:
            found.append(RepeatedChange(each.path, step, names[step], each.what))
    return sorted(found, key=lambda one: (one.step, one.path))
