"""Plan an AMI: make all decisions, and raise all errors, that are possible before AWS is asked to create anything."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from baker.aws.importing import ARCHITECTURES, check_name
from baker.core.errors import UsageError
from baker.publish.base import PublishRequest

BOOT_MODES = {"bios": "legacy-bios", "uefi": "uefi"}  # the firmware that an image was verified with -> EC2's boot mode
KNOWN_BOOT_MODES = ("legacy-bios", "uefi", "uefi-preferred")
KMS_KEY = re.compile(r"arn:aws[a-z-]*:kms:(?P<region>[a-z0-9-]+):\d{12}:(key|alias)/.+")
REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
MOST_TAGS = 40  # AWS allows 50 tags, and bake adds its own


@dataclass(frozen=True)
class AmiPlan:
    """The AMI to make from an image."""

    account: str
    regions: tuple[str, ...]  # the first gets the upload
    name: str
    description: str
    architecture: str
    boot_mode: str
    digest: str  # of the disk
    tags: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)  # region -> KMS key

    def ticket(self, region: str) -> dict[str, str]:
        """The values that must be equal to those of an interrupted upload so that it can be resumed."""
        return {
            "digest": self.digest,
            "account": self.account,
            "region": region,
            "name": self.name,
            "boot_mode": self.boot_mode,
            "kms_key": self.keys.get(region, ""),
        }


def make_plan(request: PublishRequest, *, account: str, region: str) -> AmiPlan:
    """The plan for a request. `region` is used when the request names none. UsageError when the request cannot be satisfied."""
    image, options = request.baked.image, request.options
    if not image.chain:
        raise UsageError(
            f"{image.name}@{image.version} was made by the builder {image.builder}: its disk is not on this host",
            hint="publish an image that a builder on this host made",
            code="image.no-local-disk",
        )
    regions = options.regions or (region,)
    _check_regions(regions)
    architecture = ARCHITECTURES.get(request.baked.machine)
    if architecture is None:
        raise UsageError(
            f"EC2 has no instances for {request.baked.machine}",
            hint=f"it has instances for {', '.join(sorted(ARCHITECTURES))}",
            code="publish.architecture",
        )
    name = check_name(options.name or f"{image.name}-{image.version}-{image.id[:8]}")
    return AmiPlan(
        account=account,
        regions=regions,
        name=name,
        description=_description(image.description or f"{image.name} {image.version}"),
        architecture=architecture,
        boot_mode=_boot_mode(options.boot_mode or BOOT_MODES[image.firmware], architecture),
        digest=image.digest,
        tags=_tags(request, name),
        keys=_keys(options.kms_keys, regions),
    )


def _check_regions(regions: Sequence[str]) -> None:
    for region, count in Counter(regions).items():
        if not REGION.fullmatch(region):
            raise UsageError(f"{region!r} is not an AWS region", hint="example: --region eu-west-1", code="publish.region")
        if count > 1:
            raise UsageError(f"the region {region} is given {count} times", hint="give it once", code="publish.region-repeated")


def _boot_mode(mode: str, architecture: str) -> str:
    if mode not in KNOWN_BOOT_MODES:
        raise UsageError(f"there is no boot mode {mode!r}", hint=f"one of {', '.join(KNOWN_BOOT_MODES)}", code="publish.boot-mode")
    if architecture == "arm64" and mode != "uefi":
        raise UsageError(
            f"arm64 instances boot only with UEFI, not with {mode}", hint="--boot-mode uefi", code="publish.boot-mode-architecture"
        )
    return mode


def _description(text: str) -> str:
    """Limit `text` to what AWS accepts as a description: 255 characters of ASCII. Other characters become question marks."""
    return text.encode("ascii", "replace").decode()[:255]


def _tags(request: PublishRequest, name: str) -> dict[str, str]:
    image = request.baked.image
    for key in request.options.tags:
        if key.startswith(("aws:", "bake:")) or not 0 < len(key) <= 128:
            raise UsageError(
                f"{key!r} is not allowed as the name of a tag",
                hint="use 1 to 128 characters; names that begin with aws: or bake: are reserved",
                code="publish.tag-name",
            )
    if len(request.options.tags) > MOST_TAGS:
        raise UsageError(
            f"{len(request.options.tags)} tags are too many",
            hint=f"at most {MOST_TAGS} are possible in addition to bake's own",
            code="publish.too-many-tags",
        )
    return {
        "Name": name,
        "bake:name": image.name,
        "bake:version": image.version,
        "bake:image": image.id,
        "bake:digest": image.digest,
        **request.options.tags,
    }


def _keys(arns: Sequence[str], regions: Sequence[str]) -> dict[str, str]:
    """Region -> the KMS key whose ARN names it. UsageError for wrong, superfluous, repeated or missing keys."""
    keys: dict[str, str] = {}
    for arn in arns:
        found = KMS_KEY.fullmatch(arn)
        if not found:
            raise UsageError(
                f"{arn!r} is not the ARN of a KMS key",
                hint="example: arn:aws:kms:eu-west-1:111122223333:key/...",
                code="publish.kms-arn",
            )
        region = found["region"]
        if region not in regions:
            raise UsageError(
                f"{arn} is a key in {region}, but the image is not published there",
                hint=f"add --region {region}, or leave the key out",
                code="publish.kms-region",
            )
        if region in keys:
            raise UsageError(
                f"there are two keys for {region}: {keys[region]} and {arn}", hint="give one key per region", code="publish.kms-repeated"
            )
        keys[region] = arn
    if keys and regions[0] not in keys:
        raise UsageError(
            f"there is no key for {regions[0]}, the first region",
            hint="--kms-key needs a key of the first region, because the snapshot that is uploaded there is encrypted with it",
            code="publish.kms-missing",
        )
    return keys
