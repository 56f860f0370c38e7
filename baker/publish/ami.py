"""The publication target `ami`: make an AMI from a baked disk, without AWS's import service.

The blocks are uploaded to the first region through the EBS direct APIs. The resulting snapshot is registered as an AMI and booted once for
verification. Other regions get copies of the verified AMI. An AMI is put on record as soon as it can be launched; until then it is in the
ledger.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from baker.aws import ebs, importing
from baker.aws.bootcheck import BootCheck, Instances, StatusChecks
from baker.aws.errors import UnreachableError
from baker.aws.resources import BUILD_TAG, access_details, claim, create, keep_image, reclaim, track
from baker.aws.session import Access, Aws
from baker.aws.upload import Base, Request, Uploaded, Uploader
from baker.aws.upload_checkpoint import UploadCheckpoint
from baker.catalog.records import ImageRecord, Publication
from baker.core.errors import BakeError, BuildError, BusyError
from baker.core.host_facts import now
from baker.core.model import Ami
from baker.core.resources import Resources
from baker.publish.amiplan import AmiPlan, make_plan
from baker.publish.base import Published, PublishRequest

MakeCheck = Callable[[Aws, PublishRequest], BootCheck]
Connect = Callable[[Access], Aws]
GOES_ON = "the uploaded blocks are kept for now: run the same command to resume, or `bake sweep` to delete them"


def status_checks(aws: Aws, request: PublishRequest) -> BootCheck:
    """The default boot check: AWS's own status checks."""
    return StatusChecks(aws, request.clock, Instances(aws, request.options.instance_type, request.options.subnet))


def access(request: PublishRequest) -> Access:
    """The credentials and the first region of a request."""
    return Access(region=(*request.options.regions, None)[0], profile=request.options.profile)


class AmiTarget:
    """Publish AMIs. `boot_check` makes the check that boots an AMI once, `connect` opens the session."""

    kind = "ami"

    def __init__(self, boot_check: MakeCheck = status_checks, connect: Connect = Aws) -> None:
        self._boot_check = boot_check
        self._connect = connect

    def publish(self, request: PublishRequest) -> tuple[Published, ...]:
        aws = self._connect(access(request))
        plan = make_plan(request, account=aws.account, region=aws.region)
        image = request.baked.image
        name = f"publications/{image.id}-{plan.account}"
        with request.leases.try_exclusive(name) as lease:
            if lease is None:
                raise BusyError(
                    f"{request.leases.holder(name)} is publishing {image.name}@{image.version} to the account {plan.account}",
                    hint="wait for it",
                    code="publish.running",
                )
            return _Publishing(aws, request, plan, self._boot_check(aws, request)).everywhere()

    def reclaim(self, kind: str, details: Mapping[str, object]) -> bool:
        return reclaim(kind, details)


@dataclass(frozen=True)
class _Publishing:
    """The publication of one image in the regions of one account."""

    aws: Aws
    request: PublishRequest
    plan: AmiPlan
    check: BootCheck

    @property
    def image(self) -> ImageRecord:
        return self.request.baked.image

    def everywhere(self) -> tuple[Published, ...]:
        """Publish in every region that does not have the image. BakeError when the first region failed, or after all others were tried."""
        done = {} if self.request.options.force else self._present()
        todo = [region for region in self.plan.regions if region not in done]
        taken = {region: self._taken(region) for region in todo}
        if not done:
            first, *todo = todo
            done[first] = self._first(first, taken[first])
        if todo:
            source = next(region for region in self.plan.regions if region in done)
            done |= self._copies(done[source].publication, todo, taken)
        return tuple(done[region] for region in self.plan.regions)

    def _present(self) -> dict[str, Published]:
        """The regions where the image is published on record and can still be launched."""
        found = {}
        for region in self.plan.regions:
            for publication in self.request.publications.of(self.image.id, kind="ami", region=region):
                if publication.account == self.plan.account and importing.is_available(self.aws, region, publication.reference):
                    found[region] = Published(publication, unchanged=True)
        return found

    def _taken(self, region: str) -> Ami | None:
        """This image's AMI in a region that a killed process left unrecorded, else None. BuildError when another AMI has the name."""
        found = importing.named(self.aws, region, self.plan.name)
        if found is None:
            return None
        ami, tags = found
        if tags.get("bake:image") == self.image.id and tags.get("bake:digest") == self.image.digest and not self.request.options.force:
            return ami
        raise BuildError(
            f"{region} already has an AMI named {self.plan.name}: {ami.id}",
            hint="--name gives this AMI another name",
            code="publish.name-taken",
        )

    # --- the first region ------------------------------------------------------------------------------------------------

    def _first(self, region: str, taken: Ami | None) -> Published:
        journal = UploadCheckpoint(self.request.state / f"{self.image.id}-{self.plan.account}-{region}")
        before = journal.load()
        ours = before is not None and before.ticket == self.plan.ticket(region)
        run = before.run if before is not None and ours else new_run()
        with self.request.ledger.open(run) as ledger:
            resources = track(ledger, self.aws)
            try:
                if taken is not None and not ours:
                    return self._adopted(region, taken, resources)
                return self._imported(region, journal, resources)
            except UnreachableError as error:  # nothing could be deleted either
                error.add_note(GOES_ON)
                raise
            except BaseException as error:
                resources.release_after(error, region=region)
                journal.forget()
                raise

    def _imported(self, region: str, journal: UploadCheckpoint, resources: Resources) -> Published:
        started = self.request.clock.now()
        report = self.request.report
        with report.stage("upload", region):
            uploaded = Uploader(self.aws, journal, resources, report, self.request.clock).upload(self._upload_request(region))
        with report.stage("register", region):
            ami = self._registered(region, uploaded, resources)
        self._verify(ami, resources)
        publication = self._publication(
            ami, run=resources.run, base=uploaded.base, blocks=uploaded.changed, sent=uploaded.sent, verified=self.request.options.verify
        )
        self._record(publication, resources)
        journal.forget()
        return Published(publication, sent=uploaded.sent * ebs.BLOCK, seconds=self.request.clock.now() - started)

    def _upload_request(self, region: str) -> Request:
        return Request(
            region=region,
            disk=self.request.baked.disk,
            ticket=self.plan.ticket(region),
            name=self.plan.name,
            description=self.plan.description,
            tags=self.plan.tags,
            kms_key=self.plan.keys.get(region, ""),
            bases=tuple(self._bases(region)),
        )

    def _bases(self, region: str) -> list[Base]:
        """Snapshots of earlier images whose disks are on this host and that are encrypted with the same key as the new snapshot."""
        return [
            Base(publication.snapshots[0], baked.image.id, baked.disk)
            for baked in self.request.earlier
            for publication in self.request.publications.of(baked.image.id, kind="ami", region=region)
            if publication.account == self.plan.account
            and publication.snapshots
            and publication.details.get("kms_key", "") == self.plan.keys.get(region, "")
        ]

    def _registered(self, region: str, uploaded: Uploaded, resources: Resources) -> Ami:
        wanted = importing.Registration(
            region=region,
            name=self.plan.name,
            snapshot=uploaded.snapshot,
            size=self.request.baked.disk.virtual_size,
            architecture=self.plan.architecture,
            boot_mode=self.plan.boot_mode,
            description=self.plan.description,
            tags=self._tags(resources.run),
        )
        made = self._create(resources, region, lambda: importing.register(self.aws, wanted, clock=self.request.clock))
        return importing.wait_available(self.aws, region, made)

    def _create(self, resources: Resources, region: str, action: Callable[[], str]) -> str:
        return create(resources, self.aws, "ami:image", region=region, name=self.plan.name, action=action)

    def _verify(self, ami: Ami, resources: Resources) -> None:
        if self.request.options.verify:
            with self.request.report.stage("verify", ami.id):
                self.check(ami, resources, self.request.report)

    def _adopted(self, region: str, ami: Ami, resources: Resources) -> Published:
        """Put an existing AMI of this image on record. It is not deleted when it does not boot."""
        ami = importing.wait_available(self.aws, region, ami.id)
        self._verify(ami, resources)
        claim(self.aws, region, resources.run, ami.id, *ami.snapshots)
        publication = self._publication(ami, run=resources.run, verified=self.request.options.verify)
        self.request.publications.add(publication)
        return Published(publication)

    # --- other regions -----------------------------------------------------------------------------------------------------

    def _copies(self, source: Publication, regions: Sequence[str], taken: Mapping[str, Ami | None]) -> dict[str, Published]:
        """Copy an AMI: start all copies, then wait for all. A failed copy does not prevent the publication of the others."""
        done: dict[str, Published] = {}
        failed: dict[str, BakeError] = {}
        with self.request.ledger.open(new_run()) as ledger, self.request.report.stage("copy", ", ".join(regions)):
            resources = track(ledger, self.aws)
            try:
                made: dict[str, str] = {}
                for region in regions:
                    with _collected(region, resources, failed):
                        ami = taken[region]
                        made[region] = ami.id if ami is not None else self._copy(source, region, resources)
                for region, image in made.items():
                    with _collected(region, resources, failed):
                        done[region] = self._copied(source, region, image, resources, adopted=taken[region] is not None)
            except BaseException as error:
                for region in regions:
                    resources.release_after(error, region=region)
                raise
        if failed:
            raise _failure(failed, done)
        return done

    def _copy(self, source: Publication, region: str, resources: Resources) -> str:
        wanted = importing.Copy(
            source=source.reference,
            source_region=source.region,
            region=region,
            name=self.plan.name,
            token=f"{resources.run}-{region}",
            description=self.plan.description,
            tags=self._tags(resources.run),
            encrypted=bool(self.plan.keys),
            kms_key=self.plan.keys.get(region, ""),
        )
        return self._create(resources, region, lambda: importing.copy(self.aws, wanted))

    def _copied(self, source: Publication, region: str, image: str, resources: Resources, *, adopted: bool) -> Published:
        started = self.request.clock.now()
        ami = importing.wait_available(self.aws, region, image)
        claim(self.aws, region, resources.run, ami.id, *ami.snapshots)
        copied = {"copied_from": source.reference, "verified": source.details.get("verified", False)}
        publication = self._publication(ami, run=resources.run, **copied)
        if adopted:  # it existed before: it must not be deleted, whatever happens
            self.request.publications.add(publication)
        else:
            self._record(publication, resources)
        return Published(publication, seconds=self.request.clock.now() - started)

    # --- the record ------------------------------------------------------------------------------------------------------

    def _tags(self, run: str) -> dict[str, str]:
        return {**self.plan.tags, BUILD_TAG: run}

    def _publication(self, ami: Ami, **details: object) -> Publication:
        region = ami.region
        return Publication(
            image=self.image.id,
            kind="ami",
            reference=ami.id,
            region=region,
            account=self.plan.account,
            snapshots=ami.snapshots,
            details={
                "name": ami.name,
                "architecture": ami.architecture,
                "boot_mode": ami.boot_mode,
                "root_device": ami.root_device,
                "encrypted": ami.encrypted,
                "kms_key": self.plan.keys.get(region, ""),
                "access": access_details(self.aws.access) | {"region": region},
                **details,
            },
            created=now(),
        )

    def _record(self, publication: Publication, resources: Resources) -> None:
        """Put a publication on record: the commit point.

        Its ledger entries are removed just before, so that no sweep ever deletes an AMI that is on record. If the record cannot be written,
        the AMI is deleted.
        """
        keep_image(resources, publication.region)
        try:
            self.request.publications.add(publication)
        except BaseException as error:
            details = {"region": publication.region, "build": resources.run, "id": publication.reference}
            try:
                if not self._is_on_record(publication):  # it is on record when a signal arrived just after the commit
                    reclaim("ami:image", details, self.aws)
            except BakeError as problem:
                error.add_note(f"{publication.reference} in {publication.region} could not be deleted: {problem}")
            raise

    def _is_on_record(self, publication: Publication) -> bool:
        recorded = self.request.publications.of(publication.image, kind="ami", region=publication.region)
        return any(each.reference == publication.reference for each in recorded)


def new_run() -> str:
    """A random ID (12 hex digits) for a publication run in the ledger and in tags."""
    return secrets.token_hex(6)


@contextmanager
def _collected(region: str, resources: Resources, failed: dict[str, BakeError]) -> Iterator[None]:
    """Collect an error of the body in `failed`, and delete what was made in the region."""
    try:
        yield
    except BakeError as error:
        resources.release_after(error, region=region)
        failed[region] = error


def _failure(failed: Mapping[str, BakeError], done: Mapping[str, Published]) -> BakeError:
    """One error for all regions that failed, with notes about the regions that succeeded."""
    if len(failed) == 1:
        error = next(iter(failed.values()))
    else:
        error = BuildError("\n".join(f"{region}: {error.message}" for region, error in failed.items()), code="publish.regions-failed")
        for each in failed.values():
            for note in getattr(each, "__notes__", ()):
                error.add_note(note)
    for region, published in done.items():
        error.add_note(f"published in {region}: {published.publication.reference}")
    return error
