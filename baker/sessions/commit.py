"""An image made of a machine that somebody changed by hand. It is marked everywhere as what nobody can make again.

The machine that somebody is in goes on: a copy of its disk is started, sealed as every image is, shut down and put on record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from baker.artifacts.codecs import pack_packages
from baker.artifacts.disk import stored
from baker.build.change_tracking import ChangedPaths
from baker.build.inspect import inspect, warn_of_unread, write_changes
from baker.build.seal import seal
from baker.build.services import Services
from baker.build.values import Captured
from baker.catalog.records import BuildRecord, ImageRecord
from baker.core import host_facts
from baker.core.errors import UsageError
from baker.core.events import Reporter
from baker.core.home import ensure
from baker.core.ledger import BuildLedger
from baker.core.model import Disk, Identity, MachineSpec, SourceImage
from baker.core.resources import Resources
from baker.core.workspace import STORE_LEASE, new_id
from baker.disks import qemuimg
from baker.machines.base import ImageName, Launch
from baker.machines.identity import copy_identity
from baker.machines.spec import spec_of
from baker.machines.ssh.communicator import Disconnected, GuestTimeout
from baker.sessions.ephemeral import known, session
from baker.sessions.running import copy_disk, shell_of

BOOT_SECONDS = 600.0
DOWN_SECONDS = 120.0
POWER_OFF = "systemctl poweroff --no-block 2>/dev/null || poweroff 2>/dev/null || shutdown -P now"


@dataclass(frozen=True)
class CommitOptions:
    """What the image is to be called, and why it was made."""

    name: str
    version: str
    message: str = ""


@dataclass(frozen=True)
class CommitSource:
    """A copy of a machine's disk, to be made an image."""

    services: Services
    shell: str
    parent: ImageRecord
    disk: Disk
    identity: Identity  # the shell's: what is on the disk has seen its first boot, and lets nobody else in
    ledger: BuildLedger
    scratch: Path
    report: Reporter
    started: str


@contextmanager
def take(services: Services, text: str) -> Iterator[CommitSource]:
    """Copy the disk of a running shell, which goes on. NotFoundError when there is none."""
    shell = shell_of(services.home, text)
    parent = services.catalog.image(shell.image)
    services.catalog.check_usable(parent, "to be made another image of")
    with session(services) as (ledger, scratch, report):
        with report.stage("copy", shell.id):
            disk = copy_disk(services, shell, parent, scratch / "copy.qcow2")
            identity = copy_identity(services.home.work(shell.id), scratch, parent.name, parent.ssh_username)
        yield CommitSource(services, shell.id, parent, disk, identity, ledger, scratch, report, host_facts.now())


def commit(taken: CommitSource, wish: CommitOptions) -> ImageRecord:
    """Seal, capture and register what was taken. BakeError when that fails: there is no image then."""
    services, parent = taken.services, taken.parent
    if any(image.version == wish.version for image in services.catalog.images(wish.name)):
        raise UsageError(f"there is a {wish.name}@{wish.version} already", hint="--version names another one")
    before = services.catalog.build_of(parent)
    source = _source(services, parent)
    with services.leases.shared(STORE_LEASE):
        captured = _capture(taken, before, source.disk)
        with taken.report.stage("inspect"):
            found = inspect(captured, source, taken.scratch)
            warn_of_unread(taken.report, found)
            evidence = {
                "packages_before": services.store.add_bytes(pack_packages(found.packages_before)),
                "packages_after": services.store.add_bytes(pack_packages(found.packages_after)),
            }
            if found.manifest:
                changes = taken.scratch / "changes.jsonl.gz"
                write_changes(captured, captured.media, source.disk, found.manifest, changes)  # type: ignore[arg-type]
                evidence |= {"changes": services.store.add_file(changes), "manifest": services.store.add_file(found.manifest)}
        with taken.report.stage("record"):
            delta = services.store.add_disk(captured.media, parent.chain[0])  # type: ignore[arg-type]
            build = _build(taken, wish, before, evidence)
            image = ImageRecord(
                id=new_id(), name=wish.name, version=wish.version, digest=found.digest, fingerprint=build.fingerprint, parent=parent.id,
                created=host_facts.now(), size=services.store.size(delta), virtual_size=captured.media.virtual_size,
                chain=(delta, *parent.chain),
                verified=False, build=build.id, builder=parent.builder, firmware=parent.firmware, ssh_username=parent.ssh_username,
                description=wish.message, labels=dict(parent.labels), origin="committed",
            )  # fmt: skip
            services.catalog.register(build, image)
    return image


def _source(services: Services, parent: ImageRecord) -> SourceImage:
    disk = stored(parent, services.store)
    title = f"{parent.name}@{parent.version}"
    return SourceImage("image", title, parent.digest, disk, {"id": parent.id}, parent.id, parent.ssh_username, parent.chain)


def _capture(taken: CommitSource, before: BuildRecord, below: Disk) -> Captured:
    """Start the copy, seal it, shut it down; its disk as a delta on its parent's."""
    services, report, parent = taken.services, taken.report, taken.parent
    builder = services.builder(spec_of(parent.builder, before.shape), None)
    directory = ensure(taken.scratch / "commit")
    identity = taken.identity
    shape = replace(MachineSpec(**known(before.shape)), disk_size=None, accelerator="auto")
    request = Launch("commit", taken.disk, shape, identity, directory, taken.ledger, report, image=ImageName(parent.name, parent.version))
    with builder.launch(request) as machine, ExitStack() as connected:
        with report.stage("boot"):
            communicator = connected.enter_context(
                services.connect(machine.endpoint, identity, machine, directory, report=report, timeout=BOOT_SECONDS)
            )
        with report.stage("seal"):
            seal(communicator, identity, report)
            try:
                communicator.run(POWER_OFF, timeout=DOWN_SECONDS)
            except (Disconnected, GuestTimeout):
                pass
        connected.close()
        with report.stage("capture"):
            machine.shutdown(DOWN_SECONDS)
            media = builder.capture(machine, taken.scratch / "sealed.qcow2", Resources(taken.ledger))
            assert isinstance(media, Disk)
            qemuimg.merge_chain(media.path, below)  # it is a delta on the copy
            captured = qemuimg.convert(media, taken.scratch / "captured.qcow2", "qcow2", backing=below)
    return Captured(captured, machine.facts, touched=ChangedPaths())


def _build(taken: CommitSource, wish: CommitOptions, before: BuildRecord, evidence: dict[str, str]) -> BuildRecord:
    """The record says who and why; there is no template, and there are no steps."""
    parent = taken.parent
    made = {"kind": "shell", "session": taken.shell, "parent": parent.id, "message": wish.message}
    return BuildRecord(
        id=new_id(), status="built", started=taken.started, finished=host_facts.now(), template_name=wish.name,
        template_version=wish.version,
        template_path="", template_text="", template_digest="", git_commit="", git_dirty=False, variables={},
        source={"kind": "image", "title": f"{parent.name}@{parent.version}", "digest": parent.digest, "parent": parent.id, "pins": {}},
        steps=(), shape=before.shape, machine={}, host=host_facts.host_facts(), tools=host_facts.tool_versions(), who=host_facts.who(),
        ci=host_facts.ci_run(taken.services.env), timings={}, verify="none",
        fingerprint=hashlib.sha256(f"committed {taken.shell} {wish.name}@{wish.version} {host_facts.now()}".encode()).hexdigest(),
        evidence=evidence, reproduction={"wanted": False, "committed": made},
    )  # fmt: skip
