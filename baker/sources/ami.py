"""The sources `ami`, `source_ami_filter` and `ssm_parameter`: images of EC2, in the region where the builder works."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from baker.aws import images
from baker.aws.errors import AwsError, translated
from baker.core.errors import BuildError, SourceError
from baker.core.model import Ami, SourceImage
from baker.machines.ec2.builder import Ec2Builder, available
from baker.sources.base import Context
from baker.template.ec2 import AmiSource, SourceAmiFilter, SsmParameterSource


class _Amis:
    """Nothing of an AMI is on this host: `peek` never knows one."""

    def peek(self, spec: Any, context: Context) -> SourceImage | None:
        return None


class AmiById(_Amis):
    """Describes an AMI."""

    def fetch(self, spec: AmiSource, context: Context) -> SourceImage:
        return _by_id(spec.id, context, {})


class AmiByFilter(_Amis):
    """Searches for an AMI. SourceError when none fits, or several do and the template does not say which."""

    def fetch(self, spec: SourceAmiFilter, context: Context) -> SourceImage:
        builder = _builder(context)
        wanted = {"state": ("available",), **spec.filters}
        try:
            found = images.search(builder.aws, builder.region, wanted, spec.owners, deprecated=spec.include_deprecated)
        except AwsError as error:
            raise SourceError(error.message, hint="source_ami_filter has the filters of DescribeImages") from error
        if not found:
            raise SourceError(f"no AMI in {builder.region} fits source_ami_filter", hint=f"it asks for {_words(spec)}")
        if len(found) > 1 and not spec.most_recent:
            names = "".join(f"\n  {each['ImageId']} {each.get('Name', '')}" for each in found[-5:])
            raise SourceError(
                f"{len(found)} AMIs in {builder.region} fit source_ami_filter:{names}", hint="most_recent: true takes the last"
            )
        return _source(found[-1], builder.region, context, {})


class AmiByParameter(_Amis):
    """Asks a parameter of the Systems Manager for an AMI."""

    def fetch(self, spec: SsmParameterSource, context: Context) -> SourceImage:
        builder = _builder(context)
        try:
            with translated(f"the parameter {spec.name} in {builder.region}"):
                value = builder.aws.client("ssm", builder.region).get_parameter(Name=spec.name)["Parameter"]["Value"]
        except AwsError as error:
            raise SourceError(error.message, hint="source.ssm_parameter is a parameter's whole name") from error
        if not str(value).startswith("ami-"):
            raise SourceError(
                f"the parameter {spec.name} is {value!r}, which is no AMI's id", hint="want a parameter like /aws/service/..."
            )
        return _by_id(str(value), context, {"ssm_parameter": spec.name})


def _by_id(image_id: str, context: Context, pins: Mapping[str, str]) -> SourceImage:
    builder = _builder(context)
    try:
        found = images.describe(builder.aws, builder.region, image_id)
    except AwsError as error:
        if not error.missing and not error.aws_code.startswith("InvalidAMIID"):
            raise
        raise SourceError(
            f"there is no AMI {image_id} in {builder.region} that you may use", hint="an AMI's id is another one in each region"
        ) from error
    return _source(found, builder.region, context, pins)


def _source(found: Mapping[str, Any], region: str, context: Context, pins: Mapping[str, str]) -> SourceImage:
    try:
        ami = available(found, region)
    except BuildError as error:
        raise SourceError(error.message, hint=error.hint) from error
    if found.get("DeprecationTime"):
        _warn_deprecated(str(found["DeprecationTime"]), ami, context)
    return SourceImage(
        kind="ami",
        title=f"{ami.name or ami.id} ({ami.id}, {region})",
        digest=identity_digest(ami),
        media=ami,
        pins={"ami": ami.id, "region": region, "name": ami.name, "owner": ami.owner, "creation_date": ami.creation_date, **pins},
    )


def identity_digest(ami: Ami) -> str:
    """What tells one AMI from every other: of its bytes nobody but AWS knows."""
    text = json.dumps(["ami", ami.owner, ami.region, ami.id, ami.creation_date])
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _warn_deprecated(moment: str, ami: Ami, context: Context) -> None:
    from datetime import UTC, datetime

    when = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    if when < datetime.now(UTC):
        context.report.warn(f"the source {ami.id} is deprecated since {when:%Y-%m-%d}")


def _builder(context: Context) -> Ec2Builder:
    if isinstance(context.builder, Ec2Builder):
        return context.builder
    raise SourceError("an AMI is a source for the builder ec2 only", hint="builder: {kind: ec2, ...}")


def _words(spec: SourceAmiFilter) -> str:
    wanted = [f"{name}={'|'.join(values)}" for name, values in spec.filters.items()]
    return ", ".join([*wanted, f"owner {'|'.join(spec.owners)}"])
