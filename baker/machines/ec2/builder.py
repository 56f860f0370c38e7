"""The EC2 builder: machines are instances, images are AMIs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

from baker.aws import images as amis
from baker.aws.errors import AwsError
from baker.aws.resources import access_of
from baker.aws.session import Access, Aws
from baker.catalog.records import Publication
from baker.core.clock import Clock
from baker.core.errors import BuildError, NotFoundError, UsageError
from baker.core.events import Reporter
from baker.core.home import Home, ensure
from baker.core.model import Ami, Media, SourceImage
from baker.core.resources import Resources, launched
from baker.machines.base import NAMELESS, ImageName, Launch, Machine
from baker.machines.ec2 import images, instances, network, userdata
from baker.machines.ec2.check import check
from baker.machines.ec2.machine import Ec2Machine
from baker.machines.ec2.scope import IMAGE, INSTANCE, KEY_PAIR, SECURITY_GROUP, Scope
from baker.template.ec2 import Ec2Spec


class Ec2Builder:
    """Implements baker.machines.base.Builder and Publisher. Without `spec` it can only remove resources."""

    kind = "ec2"

    def __init__(
        self,
        home: Home,
        uri: str | None = None,
        *,
        spec: Ec2Spec | None = None,
        clock: Clock | None = None,
        own_address: Callable[[Any], str] = network.own_address,
        aws: Callable[[Access, Clock], Aws] = Aws,
    ) -> None:
        del uri  # every builder gets one; only libvirt uses it
        self._home, self._optional_spec, self._clock = home, spec, clock or Clock()
        self._own_address = own_address
        self._make_aws, self._sessions = aws, dict[Access, Aws]()

    @classmethod
    def configured(cls, home: Home, config: Ec2Spec) -> Self:
        return cls(home, spec=config)

    @cached_property
    def aws(self) -> Aws:
        """The AWS session of the template's configuration, or of the environment when there is none."""
        return self._aws(access_in(self._optional_spec) if self._optional_spec else Access())

    def _aws(self, access: Access) -> Aws:
        if access not in self._sessions:
            self._sessions[access] = self._make_aws(access, self._clock)
        return self._sessions[access]

    @property
    def region(self) -> str:
        return self.aws.region

    @property
    def _spec(self) -> Ec2Spec:
        if self._optional_spec is None:
            hint = "a template has them: builder: {kind: ec2, region: ..., instance_type: ...}"
            raise UsageError("the ec2 builder has no settings to start an instance with", hint=hint, code="ec2.not-configured")
        return self._optional_spec

    # -- machines -------------------------------------------------------------------------------------------------------------

    @contextmanager
    def launch(self, request: Launch) -> Iterator[Ec2Machine]:
        with launched(request.ledger, lambda resources: self._start(request, resources)) as machine:
            try:
                yield machine
            except Exception as error:
                machine.explain(error)
                raise

    def _start(self, request: Launch, resources: Resources) -> Ec2Machine:
        ami, spec = ami_of(request.media), self._spec
        scope = self._scope(request.ledger.build_id, request.image, request.name, spec.run_tags)
        runtime = self._home.runtime / f"{scope.build[:12]}-{request.name}"
        resources.enter("directory", lambda: shutil.rmtree(runtime, ignore_errors=True), path=str(runtime))
        ensure(runtime)
        key = network.make_key_pair(scope, request.identity.client_public, resources)
        common = instances.InstanceRequest(ami, key, self._groups(scope, resources), userdata.make(request.identity, self._extra_user_data))
        found, attempt = instances.run(scope, spec, self._placement, common, resources=resources, warn=request.report.warn)
        request.report.info(f"{found['InstanceId']}: {attempt.title}, {scope.region}")
        return Ec2Machine(request, scope, spec, found, attempt=attempt, runtime=runtime)

    def _groups(self, scope: Scope, resources: Resources) -> tuple[str, ...]:
        if self._spec.security_group_ids:
            return self._spec.security_group_ids
        cidrs = network.allowed_cidrs(scope, self._spec, self._placement, self._own_address)
        return (network.make_group(scope, self._placement.vpc, cidrs, resources),)

    @cached_property
    def _placement(self) -> network.Placement:
        return network.find_placement(self._scope("", NAMELESS), self._spec)

    @property
    def _extra_user_data(self) -> str | None:
        path = self._spec.user_data_file
        return path.read_text() if path else self._spec.user_data

    def _scope(self, build: str, image: ImageName, machine: str = "", extra: Mapping[str, str] | None = None) -> Scope:
        return Scope(self.aws, self.region, build, image, machine, dict(extra or {}))

    # -- images ---------------------------------------------------------------------------------------------------------------

    def capture(self, machine: Machine, destination: Path, products: Resources) -> Ami:
        if not isinstance(machine, Ec2Machine):
            raise TypeError("this machine belongs to another builder")
        scope = self._scope(machine.scope.build, machine.request.image, extra=self._spec.tags)
        return images.create(scope, self._spec, machine.id, products)

    def check(self, source: SourceImage, image: ImageName, build: str, report: Reporter) -> None:
        report.debug(f"AWS account {self.aws.account}, {self.aws.arn}")
        check(self._scope(build, image), self._spec, ami_of(source.media), self._placement, report.warn)

    def publish(self, media: Media, image: ImageName, build: str, products: Resources, report: Reporter) -> tuple[Publication, ...]:
        ami, spec = ami_of(media), self._spec
        scope = self._scope(build, image, extra=spec.tags)
        regions = [region for region in spec.ami_regions if region != ami.region]
        progress = partial(report.progress, "regions", unit="items")
        by_region = {ami.region: ami, **images.copy(scope, spec, ami, regions=regions, resources=products, progress=progress)}
        for step in (images.finish, images.protect):
            calls = [partial(_in_region, step, images.scope_in(scope, region), spec, each) for region, each in by_region.items()]
            images.in_parallel(calls)
        return tuple(self._publication(each) for each in by_region.values())

    def _publication(self, ami: Ami) -> Publication:
        details: dict[str, Any] = {
            "name": ami.name,
            "architecture": ami.architecture,
            "creation_date": ami.creation_date,
            "boot_mode": ami.boot_mode,
            "encrypted": ami.encrypted,
            "size": ami.virtual_size,
            "root_device": ami.root_device,
            "access": asdict(self.aws.access),
        }
        return Publication(
            image="",
            kind="ami",
            reference=ami.id,
            region=ami.region,
            account=self.aws.account,
            snapshots=ami.snapshots,
            details=details,
        )

    def media(self, publications: Sequence[Publication]) -> Ami:
        here = [each for each in publications if each.kind == "ami" and each.region == self.region]
        if not here:
            regions = ", ".join(sorted({each.region for each in publications if each.kind == "ami"}))
            raise NotFoundError(
                f"the image has no AMI in {self.region}",
                hint=f"it has one in {regions}" if regions else "bake publish IMAGE --to ami creates one",
                code="image.no-ami-in-region",
            )
        try:
            found = amis.describe(self.aws, self.region, here[-1].reference)
        except AwsError as error:
            if not error.missing:
                raise
            raise NotFoundError(f"the image's AMI {here[-1].reference} no longer exists in {self.region}", code="ec2.ami-gone") from error
        if found.get("State") == "disabled":
            message = f"the image's AMI {here[-1].reference} in {self.region} is disabled"
            raise NotFoundError(message, hint="aws ec2 enable-image enables it", code="ec2.ami-disabled")
        return available(found, self.region)

    def remove(self, publication: Publication) -> None:
        aws = self._aws(access_of(publication.details))
        amis.remove(aws, publication.region, publication.reference)
        amis.delete_snapshots(aws, publication.region, publication.snapshots)  # they remain when somebody else deregistered the AMI

    # -- cleaning up ----------------------------------------------------------------------------------------------------------

    def reclaim(self, kind: str, details: Mapping[str, Any]) -> bool:
        if kind not in (KEY_PAIR, SECURITY_GROUP, INSTANCE, IMAGE):
            return False
        scope = Scope(self._aws(access_of(details)), details["region"], details["build"], machine=details.get("machine", ""))
        match kind:
            case "ec2:key-pair":
                network.delete_key_pair(scope, details["name"])
            case "ec2:security-group":
                network.delete_group(scope, details["name"])
            case "ec2:instance":
                instances.terminate(scope, spot=bool(details.get("spot")))
            case _:
                images.remove_by_name(scope, details["name"])
        return True


def access_in(spec: Ec2Spec) -> Access:
    """The credentials and the endpoint that a template names."""
    role = spec.assume_role
    return Access(
        region=spec.region,
        profile=spec.profile,
        endpoint_url=spec.endpoint_url,
        role_arn=role.role_arn if role else None,
        external_id=role.external_id if role else None,
        session_name=role.session_name if role else "bake",
    )


def ami_of(media: Media) -> Ami:
    """Return `media` if it is an AMI, else raise BuildError."""
    if isinstance(media, Ami):
        return media
    message = f"{media.path} is a disk of this host, and EC2 boots from AMIs only"
    raise BuildError(message, hint="bake publish IMAGE --to ami creates an AMI of an image", code="ec2.needs-ami")


def available(found: Mapping[str, Any], region: str) -> Ami:
    """The AMI of an answer of DescribeImages. BuildError when the AMI is not available or has no EBS root volume."""
    if found.get("State") != "available":
        raise BuildError(f"the AMI {found['ImageId']} in {region} is {found.get('State')}, not available", code="aws.ami-not-available")
    if found.get("RootDeviceType", "ebs") != "ebs":
        message = f"the root device of the AMI {found['ImageId']} is an instance store: only EBS volumes can be captured"
        raise BuildError(message, hint="use an AMI whose root device is an EBS volume", code="ec2.instance-store-root")
    return amis.ami(found, region)


def _in_region(step: Callable[[Scope, Ec2Spec, Ami], None], scope: Scope, spec: Ec2Spec, ami: Ami, stopped: Callable[[], bool]) -> None:
    if not stopped():
        step(scope, spec, ami)
