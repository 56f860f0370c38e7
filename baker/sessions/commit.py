"""Makes an image from a machine that was changed by hand. The image is marked as one that cannot be rebuilt.

The machine keeps running: another machine starts from a copy of its disk, and is sealed, shut down and recorded as in a build.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from baker.artifacts.disk import stored
from baker.build import record
from baker.build.artifacts import ArtifactCollector
from baker.build.boot import launched, power_off
from baker.build.change_tracking import ChangedInodes
from baker.build.inspect import inspect, warn_of_unread, write_changes
from baker.build.job import BuildEvents
from baker.build.seal import seal
from baker.build.services import Services
from baker.build.values import Captured
from baker.catalog.records import BuildRecord, ImageRecord
from baker.core import host_facts
from baker.core.errors import UsageError
from baker.core.events import Reporter, Tee
from baker.core.home import ensure
from baker.core.ledger import BuildLedger
from baker.core.model import Disk, Identity, MachineSpec, SourceImage
from baker.core.resources import Resources
from baker.core.workspace import STORE_LEASE, new_id
from baker.disks import qemuimg
from baker.machines.base import ImageName, Launch
from baker.machines.identity import copy_identity
from baker.machines.spec import spec_of
from baker.render.logfile import LogFile
from baker.sessions.ephemeral import session, spec_fields
from baker.sessions.running import copy_disk, shell_of

BOOT_SECONDS = 600.0
DOWN_SECONDS = 120.0


@dataclass(frozen=True)
class CommitOptions:
    """The name and version of the image, and the reason for it."""

    name: str
    version: str
    message: str = ""


@dataclass(frozen=True)
class CommitSource:
    """A copy of a machine's disk, to make an image from. It exists until the context of `take` ends."""

    services: Services
    shell: str
    parent: ImageRecord
    disk: Disk
    identity: Identity  # of the shell: the system on the disk has booted before, and accepts no other
    ledger: BuildLedger
    scratch: Path
    report: Reporter
    artifacts: ArtifactCollector
    events: BuildEvents
    started: str


@contextmanager
def take(services: Services, text: str) -> Iterator[CommitSource]:
    """Copy the disk of a running shell, which keeps running. NotFoundError when there is no such shell."""
    shell = shell_of(services.home, text)
    parent = services.catalog.image(shell.image)
    services.catalog.check_usable(parent, "to be made another image of")
    with session(services) as (ledger, scratch, outer), LogFile(scratch / "commit.log") as log:
        events = BuildEvents()
        report = Reporter(Tee(outer.sink, events, log), outer.build)
        with report.stage("copy", shell.id):
            disk = copy_disk(services, shell, parent, scratch / "copy.qcow2")
            identity = copy_identity(services.home.work(shell.id), scratch, parent.name, parent.ssh_username)
        artifacts = ArtifactCollector(scratch, log.path)
        yield CommitSource(services, shell.id, parent, disk, identity, ledger, scratch, report, artifacts, events, host_facts.now())


def commit(origin: CommitSource, options: CommitOptions) -> ImageRecord:
    """Seal, capture and register the copy `origin`. BakeError when that fails; then there is no image."""
    services, parent = origin.services, origin.parent
    if any(image.version == options.version for image in services.catalog.images(options.name)):
        raise UsageError(
            f"{options.name}@{options.version} exists already", hint="choose another version with --version", code="image.version-taken"
        )
    before = services.catalog.build_of(parent)
    source = _source(services, parent)
    with services.leases.shared(STORE_LEASE):
        captured = _capture(origin, before, source.disk)
        with origin.report.stage("inspect"):
            inspection = inspect(captured, source, origin.scratch)
            warn_of_unread(origin.report, inspection)
            inspection = replace(inspection, changes=write_changes(captured, source, inspection.manifest, origin.scratch))
            origin.artifacts.set_inspection(inspection)
        with origin.report.stage("record"):
            return _record(origin, options, before, source, captured)


def _record(origin: CommitSource, options: CommitOptions, before: BuildRecord, source: SourceImage, captured: Captured) -> ImageRecord:
    """Register the image. Its record has who made it and why, but no template and no steps."""
    services, parent, created = origin.services, origin.parent, host_facts.now()
    artifacts = origin.artifacts.snapshot()
    assert artifacts.inspection is not None  # an image is recorded once its disk has been read
    chain, size = record.stored_media(services, source, captured.media)
    recorded_source = {"kind": source.kind, "title": source.title, "digest": source.digest, "parent": parent.id, "pins": {}}
    committed = {"kind": "shell", "session": origin.shell, "parent": parent.id, "message": options.message}
    build = replace(
        record.build_record(
            services,
            id=new_id(),
            status="built",
            started=origin.started,
            name=options.name,
            version=options.version,
            source=recorded_source,
            shape=before.shape,
            timings=origin.events.timings,
            facts=captured.facts,
        ),
        verify="none",
        fingerprint=hashlib.sha256(f"committed {origin.shell} {options.name}@{options.version} {created}".encode()).hexdigest(),
        evidence=record.stored_evidence(services.store, artifacts.evidence(str)),
        reproduction={"wanted": False, "committed": committed},
    )
    image = ImageRecord(
        id=new_id(),
        name=options.name,
        version=options.version,
        digest=artifacts.inspection.digest,
        fingerprint=build.fingerprint,
        parent=parent.id,
        created=created,
        size=size,
        virtual_size=captured.media.virtual_size,
        chain=chain,
        verified=False,
        build=build.id,
        builder=parent.builder,
        firmware=parent.firmware,
        ssh_username=parent.ssh_username,
        description=options.message,
        labels=dict(parent.labels),
        origin="committed",
    )
    record.register(services, origin.report, build, image)
    return image


def _source(services: Services, parent: ImageRecord) -> SourceImage:
    disk = stored(parent, services.store)
    title = f"{parent.name}@{parent.version}"
    return SourceImage("image", title, parent.digest, disk, {"id": parent.id}, parent.id, parent.ssh_username, parent.chain)


def _capture(origin: CommitSource, before: BuildRecord, below: Disk) -> Captured:
    """Start a machine from the copy, seal it and shut it down. Returns its disk as a delta on the parent's disk."""
    services, report, parent = origin.services, origin.report, origin.parent
    builder = services.builder(spec_of(parent.builder, before.shape), None)
    directory = ensure(origin.scratch / "commit")
    identity = origin.identity
    shape = replace(MachineSpec(**spec_fields(before.shape)), disk_size=None, accelerator="auto")
    request = Launch("commit", origin.disk, shape, identity, directory, origin.ledger, report, image=ImageName(parent.name, parent.version))
    with launched(builder, request, services.connect, timeout=BOOT_SECONDS, artifacts=origin.artifacts) as connected:
        machine = connected.machine
        with report.stage("seal"):
            seal(connected.communicator, identity, report)
            power_off(connected.communicator, DOWN_SECONDS)
        connected.connection.close()
        with report.stage("capture"):
            machine.shutdown(DOWN_SECONDS)
            media = builder.capture(machine, origin.scratch / "sealed.qcow2", Resources(origin.ledger))
            assert isinstance(media, Disk)
            qemuimg.merge_chain(media.path, below)  # it is a delta on the copy
            captured = qemuimg.convert(media, origin.scratch / "captured.qcow2", "qcow2", backing=below)
    return Captured(captured, machine.facts, changed_inodes=ChangedInodes())
