"""Makes an image of a machine that somebody changed by hand. It is marked everywhere as one that cannot be made again.

The machine that somebody is in goes on running: a copy of its disk is started, sealed as every image is, shut down and recorded.
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
    """The name and version of the image, and why it was made."""

    name: str
    version: str
    message: str = ""


@dataclass(frozen=True)
class CommitSource:
    """A copy of a machine's disk, from which an image is to be made. It is there until the context of `take` ends."""

    services: Services
    shell: str
    parent: ImageRecord
    disk: Disk
    identity: Identity  # the shell's: the system on the disk has had its first boot, and lets nobody else in
    ledger: BuildLedger
    scratch: Path
    report: Reporter
    artifacts: ArtifactCollector
    events: BuildEvents
    started: str


@contextmanager
def take(services: Services, text: str) -> Iterator[CommitSource]:
    """Copy the disk of a running shell, which goes on. NotFoundError when there is none."""
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


def commit(taken: CommitSource, options: CommitOptions) -> ImageRecord:
    """Seal, capture and register what was taken. BakeError when that fails: there is no image then."""
    services, parent = taken.services, taken.parent
    if any(image.version == options.version for image in services.catalog.images(options.name)):
        raise UsageError(
            f"there is a {options.name}@{options.version} already", hint="--version names another one", code="image.version-taken"
        )
    before = services.catalog.build_of(parent)
    source = _source(services, parent)
    with services.leases.shared(STORE_LEASE):
        captured = _capture(taken, before, source.disk)
        with taken.report.stage("inspect"):
            inspection = inspect(captured, source, taken.scratch)
            warn_of_unread(taken.report, inspection)
            inspection = replace(inspection, changes=write_changes(captured, source, inspection.manifest, taken.scratch))
            taken.artifacts.set_inspection(inspection)
        with taken.report.stage("record"):
            return _record(taken, options, before, source, captured)


def _record(taken: CommitSource, options: CommitOptions, before: BuildRecord, source: SourceImage, captured: Captured) -> ImageRecord:
    """Register the image. Its record says who made it and why; there is no template, and there are no steps."""
    services, parent, created = taken.services, taken.parent, host_facts.now()
    artifacts = taken.artifacts.snapshot()
    assert artifacts.inspection is not None  # an image is recorded once its disk has been read
    chain, size = record.stored_media(services, source, captured.media)
    origin = {"kind": source.kind, "title": source.title, "digest": source.digest, "parent": parent.id, "pins": {}}
    committed = {"kind": "shell", "session": taken.shell, "parent": parent.id, "message": options.message}
    build = replace(
        record.build_record(
            services,
            id=new_id(),
            status="built",
            started=taken.started,
            name=options.name,
            version=options.version,
            source=origin,
            shape=before.shape,
            timings=taken.events.timings,
            facts=captured.facts,
        ),
        verify="none",
        fingerprint=hashlib.sha256(f"committed {taken.shell} {options.name}@{options.version} {created}".encode()).hexdigest(),
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
    record.register(services, taken.report, build, image)
    return image


def _source(services: Services, parent: ImageRecord) -> SourceImage:
    disk = stored(parent, services.store)
    title = f"{parent.name}@{parent.version}"
    return SourceImage("image", title, parent.digest, disk, {"id": parent.id}, parent.id, parent.ssh_username, parent.chain)


def _capture(taken: CommitSource, before: BuildRecord, below: Disk) -> Captured:
    """Start the copy, seal it and shut it down. Returns its disk as a delta on the parent's."""
    services, report, parent = taken.services, taken.report, taken.parent
    builder = services.builder(spec_of(parent.builder, before.shape), None)
    directory = ensure(taken.scratch / "commit")
    identity = taken.identity
    shape = replace(MachineSpec(**spec_fields(before.shape)), disk_size=None, accelerator="auto")
    request = Launch("commit", taken.disk, shape, identity, directory, taken.ledger, report, image=ImageName(parent.name, parent.version))
    with launched(builder, request, services.connect, timeout=BOOT_SECONDS, artifacts=taken.artifacts) as connected:
        machine = connected.machine
        with report.stage("seal"):
            seal(connected.communicator, identity, report)
            power_off(connected.communicator, DOWN_SECONDS)
        connected.connection.close()
        with report.stage("capture"):
            machine.shutdown(DOWN_SECONDS)
            media = builder.capture(machine, taken.scratch / "sealed.qcow2", Resources(taken.ledger))
            assert isinstance(media, Disk)
            qemuimg.merge_chain(media.path, below)  # it is a delta on the copy
            captured = qemuimg.convert(media, taken.scratch / "captured.qcow2", "qcow2", backing=below)
    return Captured(captured, machine.facts, changed_inodes=ChangedInodes())
