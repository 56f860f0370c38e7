"""The sources `ami`, `source_ami_filter` and `ssm_parameter`: AMIs in the region of the EC2 builder."""

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
    """Base class of the AMI sources. AMIs are not on this host, so `peek` never finds one."""

    def peek(self, spec: Any, context: Context) -> SourceImage | None:
        return None


class AmiById(_Amis):
    """Look up an AMI by its ID."""

    def fetch(self, spec: AmiSource, context: Context) -> SourceImage:
        return _by_id(spec.id, context, {})


class AmiByFilter(_Amis):
    """Search for an AMI. SourceError when none matches, or when several match and `most_recent` is not set."""

    def fetch(self, spec: SourceAmiFilter, context: Context) -> SourceImage:
        builder = _builder(context)
        wanted = {"state": ("available",), **spec.filters}
        try:
            found = images.search(builder.aws, builder.region, wanted, spec.owners, deprecated=spec.include_deprecated)
        except AwsError as error:
            raise SourceError(
                error.message, hint="source_ami_filter takes the filters of DescribeImages", code="source.ami-filter"
            ) from error
        if not found:
            raise SourceError(
                f"no AMI in {builder.region} matches source_ami_filter",
                hint=f"the filter is {_filter_text(spec)}",
                code="source.ami-no-match",
            )
        if len(found) > 1 and not spec.most_recent:
            names = "".join(f"\n  {each['ImageId']} {each.get('Name', '')}" for each in found[-5:])
            raise SourceError(
                f"{len(found)} AMIs in {builder.region} match source_ami_filter:{names}",
                hint="narrow the filter, or set most_recent: true to take the newest",
                code="source.ami-ambiguous",
            )
        return _source(found[-1], builder.region, context, {})


class AmiByParameter(_Amis):
    """Look up the AMI whose ID is the value of a Systems Manager parameter."""

    def fetch(self, spec: SsmParameterSource, context: Context) -> SourceImage:
        builder = _builder(context)
        try:
            with translated(f"the parameter {spec.name} in {builder.region}"):
                value = builder.aws.client("ssm", builder.region).get_parameter(Name=spec.name)["Parameter"]["Value"]
        except AwsError as error:
            raise SourceError(error.message, hint="source.ssm_parameter is a parameter's full name", code="source.ssm-parameter") from error
        if not str(value).startswith("ami-"):
            raise SourceError(
                f"the parameter {spec.name} is {value!r}, which is not the ID of an AMI",
                hint="name a parameter that holds an AMI's ID, such as those below /aws/service/",
                code="source.ssm-not-an-ami",
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
            f"there is no AMI {image_id} in {builder.region} that this account may use",
            hint="an AMI has a different ID in each region; an AMI of another account must be shared with yours",
            code="source.ami-missing",
        ) from error
    return _source(found, builder.region, context, pins)


def _source(found: Mapping[str, Any], region: str, context: Context, pins: Mapping[str, str]) -> SourceImage:
    try:
        ami = available(found, region)
    except BuildError as error:
        raise SourceError(error.message, hint=error.hint, code=error.code) from error
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
    """A digest of what identifies an AMI: owner, region, ID and creation date. Its bytes cannot be read without a copy of its snapshots."""
    text = json.dumps(["ami", ami.owner, ami.region, ami.id, ami.creation_date])
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _warn_deprecated(moment: str, ami: Ami, context: Context) -> None:
    from datetime import UTC, datetime

    when = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    if when < datetime.now(UTC):
        context.report.warn(f"the source {ami.id} has been deprecated since {when:%Y-%m-%d}")


def _builder(context: Context) -> Ec2Builder:
    if isinstance(context.builder, Ec2Builder):
        return context.builder
    raise SourceError("only the builder ec2 can start from an AMI", hint="set builder: {kind: ec2, ...}", code="source.ami-builder")


def _filter_text(spec: SourceAmiFilter) -> str:
    wanted = [f"{name}={'|'.join(values)}" for name, values in spec.filters.items()]
    return ", ".join([*wanted, f"owner {'|'.join(spec.owners)}"])
