"""Builds that make no image: does it build and pass its tests, and does a second run of its steps change anything?"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch

from baker.artifacts.trees import compare_trees
from baker.build import stages
from baker.build.change_tracking import Tracker, key_of
from baker.build.downloads import shared_downloads
from baker.build.job import Job, open_job
from baker.build.layers import Layering, Started
from baker.build.provision import carry_out, provision_and_capture
from baker.build.services import Services
from baker.core.errors import BuildError, HostError
from baker.core.model import FileEntry
from baker.core.workspace import new_id
from baker.disks.manifest import file_manifest
from baker.machines.base import Publisher, SupportsPause
from baker.plan.plan import Plan
from baker.plan.requests import BuildOptions
from baker.template.model import Template

# What a system writes by itself, whoever runs: not what a step did to it.
NOISE = ("/var/log/*", "/tmp/*", "/var/tmp/*", "/run/*", "/var/cache/*", "/var/lib/apt/lists/*", "/var/lib/systemd/*", "*/.ansible/*")
SYNC_SECONDS = 120.0


@dataclass(frozen=True)
class RepeatedChange:
    """A path that the second run of a step changed. `what`: as in a comparison of trees."""

    path: str
    step: int
    name: str
    what: tuple[str, ...]


def test(template: Template, options: BuildOptions, services: Services, *, idempotent: bool) -> list[RepeatedChange]:
    """Try a template. What the second run of its steps changed, if that was asked for. A failed trial leaves a record with its log."""
    with open_job(template, options, services, new_id()) as job, stages.failures_on_record(job):
        stages.announce(job)
        found = again(job) if idempotent else []
        if not idempotent:
            build(job)
        stages.announce_stop(job, "tried")
        return found


def build(job: Job) -> None:
    """Build and verify, and register nothing. VerifyError or BuildError when that fails."""
    if isinstance(job.builder, Publisher):
        kind = job.template.builder.kind
        raise BuildError(
            f"bake test makes no image, and the builder {kind} cannot test a machine without one", hint="bake build --skip-verify builds it"
        )
    plan = stages.plan(job, stages.resolve(job))
    with stages.products(job) as products:
        captured = stages.normalize(job, plan, provision_and_capture(job, plan, products))
        stages.verify(job, plan, captured, "it would not be registered")


def again(job: Job) -> list[RepeatedChange]:
    """Carry out all steps, then all of them once more on the same machine; what the second run changed. BuildError when a step fails,
    HostError where the machine's disk cannot be read from this host."""
    builder = job.builder
    if not isinstance(builder, SupportsPause) or not builder.can_pause():
        raise HostError("only machines of this host's own libvirt show their disks: this template's does not", hint="leave out --connect")
    plan = stages.plan(job, stages.resolve(job))
    with (
        Layering(job, plan, job.layer_options) as layers,
        shared_downloads(job) as downloads,
        layers.started(downloads.gate) as start,
        start.connection,
    ):
        carry_out(job, start, layers, plan.steps[start.depth :], downloads)
        tracker = Tracker(builder, job.report, layers.view)
        before, _ = _tree(builder, start, layers)
        tracker.begin(start.machine, start.communicator, None)
        with job.report.stage("again"):
            for planned in plan.steps:
                carry_out(job, start, None, [planned], downloads)
                tracker.after(start.machine, start.communicator, planned.index)
        if tracker.touched is None:
            raise HostError("the disk of the machine cannot be read from outside, so nobody can say what the second run changed")
        after, keys = _tree(builder, start, layers)
        return _changed(plan, before, after, keys, tracker)


def _tree(builder: SupportsPause, start: Started, layers: Layering) -> tuple[list[FileEntry], dict[str, tuple[int, int]]]:
    """All files of the machine as it is now, and their inodes."""
    from baker.disks.rootfs import open_root

    start.communicator.run("sync", timeout=SYNC_SECONDS)
    with builder.paused_disk(start.machine) as disk:
        seen = layers.view(disk)
        with open_root(seen, replay=True) as root:
            return list(file_manifest(seen, replay=True)), {found.path: key_of(found) for found in root.walk()}


def _changed(
    plan: Plan, before: list[FileEntry], after: list[FileEntry], keys: dict[str, tuple[int, int]], tracker: Tracker
) -> list[RepeatedChange]:
    assert tracker.touched is not None
    names = {planned.index: planned.name for planned in plan.steps}
    last = tracker.touched.last
    found = []
    for each in compare_trees(before, after):
        if set(each.what) <= {"time"} or any(fnmatch(each.path, pattern) for pattern in NOISE):
            continue
        place = each.path
        while keys.get(place) not in last and place != "/":  # of what is gone, or came with a directory: the directory's
            place = place.rpartition("/")[0] or "/"
        step = last.get(keys[place]) if place in keys else None
        if step is not None:
            found.append(RepeatedChange(each.path, step, names[step], each.what))
    return sorted(found, key=lambda one: (one.step, one.path))
