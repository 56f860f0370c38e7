"""Everything about an AMI that can be decided, and refused, before AWS is asked to make anything."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from baker.aws.importing import ARCHITECTURES, check_name
from baker.core.errors import UsageError
from baker.publish.base import PublishRequest

BOOT_MODES = {"bios": "legacy-bios", "uefi": "uefi"}  # by the firmware that an image was verified with
KNOWN_BOOT_MODES = ("legacy-bios", "uefi", "uefi-preferred")
KMS_KEY = re.compile(r"arn:aws[a-z-]*:kms:(?P<region>[a-z0-9-]+):\d{12}:(key|alias)/.+")
REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
MOST_TAGS = 40  # AWS has room for 50


@dataclass(frozen=True)
class AmiPlan:
    """What is going to be published as what."""

    account: str
    regions: tuple[str, ...]  # the first is uploaded to
    name: str
    description: str
    architecture: str
    boot_mode: str
    digest: str  # of the disk
    tags: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)  # region -> KMS key

    def ticket(self, region: str) -> dict[str, str]:
        """What has to be the same for an upload to be gone on with."""
        return {
            "digest": self.digest,
            "account": self.account,
            "region": region,
            "name": self.name,
            "boot_mode": self.boot_mode,
            "kms_key": self.keys.get(region, ""),
        }


def make_plan(order: PublishRequest, *, account: str, region: str) -> AmiPlan:
    """The plan for an order; `region` where it names none. UsageError for what cannot be."""
    image, options = order.baked.image, order.options
    if not image.chain:
        raise UsageError(f"{image.name}@{image.version} was made by the {image.builder} builder: there is no disk of it on this host")
    regions = options.regions or (region,)
    _check_regions(regions)
    architecture = ARCHITECTURES.get(order.baked.machine)
    if architecture is None:
        raise UsageError(f"EC2 has no instances for {order.baked.machine}", hint=f"it has them for {', '.join(sorted(ARCHITECTURES))}")
    name = check_name(options.name or f"{image.name}-{image.version}-{image.id[:8]}")
    return AmiPlan(
        account=account,
        regions=regions,
        name=name,
        description=_description(image.description or f"{image.name} {image.version}"),
        architecture=architecture,
        boot_mode=_boot_mode(options.boot_mode or BOOT_MODES[image.firmware], architecture),
        digest=image.digest,
        tags=_tags(order, name),
        keys=_keys(options.kms_keys, regions),
    )


def _check_regions(regions: Sequence[str]) -> None:
    for region, count in Counter(regions).items():
        if not REGION.fullmatch(region):
            raise UsageError(f"{region!r} is not a region of AWS", hint="for example: --region eu-west-1")
        if count > 1:
            raise UsageError(f"the region {region} is named {count} times")


def _boot_mode(mode: str, architecture: str) -> str:
    if mode not in KNOWN_BOOT_MODES:
        raise UsageError(f"there is no boot mode {mode!r}", hint=f"one of {', '.join(KNOWN_BOOT_MODES)}")
    if architecture == "arm64" and mode != "uefi":
        raise UsageError(f"arm64 instances boot by UEFI only, not by {mode}", hint="--boot-mode uefi")
    return mode


def _description(text: str) -> str:
    """What AWS takes for a description: 255 characters of printable ASCII."""
    return text.encode("ascii", "replace").decode()[:255]


def _tags(order: PublishRequest, name: str) -> dict[str, str]:
    image = order.baked.image
    for key in order.options.tags:
        if key.startswith(("aws:", "bake:")) or not 0 < len(key) <= 128:
            raise UsageError(
                f"a tag cannot be called {key!r}", hint="names that begin with aws: are AWS's own, those with bake: are bake's"
            )
    if len(order.options.tags) > MOST_TAGS:
        raise UsageError(f"{len(order.options.tags)} tags are too many", hint=f"AWS takes {MOST_TAGS} beside bake's own")
    return {
        "Name": name,
        "bake:name": image.name,
        "bake:version": image.version,
        "bake:image": image.id,
        "bake:digest": image.digest,
        **order.options.tags,
    }


def _keys(arns: Sequence[str], regions: Sequence[str]) -> dict[str, str]:
    """Each key under the region that its ARN names."""
    keys: dict[str, str] = {}
    for arn in arns:
        found = KMS_KEY.fullmatch(arn)
        if not found:
            raise UsageError(f"{arn!r} is not the ARN of a KMS key", hint="such as arn:aws:kms:eu-west-1:111122223333:key/...")
        region = found["region"]
        if region not in regions:
            raise UsageError(f"{arn} is a key of {region}, which is not published to", hint=f"--region {region}")
        if region in keys:
            raise UsageError(f"two keys for {region}: {keys[region]} and {arn}")
        keys[region] = arn
    if keys and regions[0] not in keys:
        raise UsageError(
            f"there is no key for {regions[0]}, the first region", hint="with --kms-key, its snapshot is encrypted with that region's key"
        )
    return keys
