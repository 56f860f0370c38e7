"""The builder `ec2` in a template, and the sources that it can start from. Keys have the names that Packer's amazon-ebs gives them."""

import ipaddress
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from baker.core.digests import file_digest
from baker.core.model import MachineSpec
from baker.core.units import Duration, Size
from baker.template.base_model import Frozen, Words
from baker.template.builders import BuilderConfig

GIB = 1 << 30
REGION = r"^[a-z]{2}(-[a-z]+)+-[0-9]+$"
AMI_NAME_PARTS = ("name", "version", "build")
AMI_NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")  # EC2's API reference, RegisterImage, Name
BUILD_ID = "0" * 12  # a stand-in with the length of a build id
Tags = Mapping[str, str]


def ami_name(pattern: str, *, name: str, version: str, build: str) -> str:
    """The name of an AMI by `pattern`. Characters that AMI names cannot have, such as the "+" of a version, become "-"."""
    return re.sub(r"[^A-Za-z0-9()\[\] ./\-'@_]", "-", pattern.format(name=name, version=version, build=build))


def _ami_name(pattern: str) -> str:
    try:
        parts = [(field, spec, how) for _, field, spec, how in Formatter().parse(pattern) if field is not None]
    except ValueError as error:
        raise ValueError(f"{error}: write a literal brace twice") from None
    for field, spec, how in parts:
        if field not in AMI_NAME_PARTS or spec or how:
            raise ValueError(f"{{{field}}} is unknown: known are {', '.join(f'{{{each}}}' for each in AMI_NAME_PARTS)}")
    if not AMI_NAME.fullmatch(pattern.format(name="abc", version="1.0.0", build=BUILD_ID)):
        raise ValueError("an AMI's name has 3 to 128 letters, digits, spaces and ( ) [ ] . / - ' @ _")
    return pattern


def _cidrs(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            ipaddress.ip_network(value)
        except ValueError:
            raise ValueError(f"{value!r} is not a block of addresses: expected e.g. 203.0.113.7/32") from None
    return values


def _whole_gib(size: int) -> int:
    if size % GIB:
        raise ValueError("an EBS volume has a whole number of GiB")
    return size


def _instant(text: str) -> str:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("not a time: expected e.g. 2027-12-31T00:00:00Z") from None
    if when.tzinfo is None:
        raise ValueError("the time zone is missing: expected e.g. 2027-12-31T00:00:00Z")
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _regions(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not re.match(REGION, value):
            raise ValueError(f"{value!r} is not a region: expected e.g. eu-west-1")
    return tuple(dict.fromkeys(values))


def _accounts(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not re.fullmatch(r"[0-9]{12}", value):
            raise ValueError(f"{value!r} is not an account: expected its 12 digits, in quotes")
    return values


def _tags(tags: Tags) -> Tags:
    for key in tags:
        if key.lower().startswith(("aws:", "bake:")):
            raise ValueError(f"the tag {key} is reserved")
        if not 1 <= len(key) <= 128 or len(tags[key]) > 256:
            raise ValueError("a tag's key has 1 to 128 characters, its value at most 256")
    if len(tags) > 40:
        raise ValueError("at most 40 tags: AWS allows 50, and bake sets some of its own")
    return tags


Regions = Annotated[Words, AfterValidator(_regions)]
Accounts = Annotated[Words, AfterValidator(_accounts)]
TagMap = Annotated[Tags, AfterValidator(_tags)]
Filters = Mapping[str, Words]


class AmiSource(Frozen):
    """An AMI by its id."""

    kind: ClassVar[str] = "ami"
    id: str = Field(pattern=r"^ami-[0-9a-f]{8,17}$", description="id of the AMI", examples=["ami-0123456789abcdef0"])


class SourceAmiFilter(Frozen):
    """The AMI that a search finds. Owners are required, because anybody can publish an image under any name."""

    kind: ClassVar[str] = "source_ami_filter"
    filters: Filters = Field(
        default_factory=dict, description="DescribeImages' filters: name (with * and ?), architecture, root-device-type, tag:KEY, ..."
    )
    owners: Words = Field(min_length=1, description="account ids, self, amazon, or aws-marketplace")
    most_recent: bool = Field(False, description="true: use the newest of several; false: several are an error")
    include_deprecated: bool = Field(False, description="true: include deprecated images")


class SsmParameterSource(Frozen):
    """The AMI that a Systems Manager parameter names."""

    kind: ClassVar[str] = "ssm_parameter"
    name: str = Field(
        alias="ssm_parameter",
        pattern=r"^[A-Za-z0-9_.\-/:]{1,1011}$",
        description="name of the parameter",
        examples=["/aws/service/debian/release/13/latest/amd64"],
    )


class AssumeRole(Frozen):
    """An IAM role to assume with the credentials of the AWS configuration."""

    role_arn: str = Field(pattern=r"^arn:[a-z-]+:iam::[0-9]{12}:role/\S+$", description="ARN of the role")
    external_id: str | None = Field(None, description="external id that its trust policy requires")
    session_name: str = Field("bake", pattern=r"^[\w+=,.@-]{2,64}$", description="name of the session in CloudTrail")


class SubnetFilter(Frozen):
    """The subnets that a search finds."""

    filters: Filters = Field(min_length=1, description="DescribeSubnets' filters: tag:KEY, availability-zone, ...")
    most_free: bool = Field(False, description="true: try the subnet with the most free addresses first; false: in the order of AWS")


class SpotSpec(Frozen):
    """Spot capacity, which is cheaper and which AWS may reclaim. `spot: true` uses the defaults."""

    max_price: str | None = Field(
        None, pattern=r"^[0-9]+(\.[0-9]+)?$", description="highest price in dollars per hour; default: the on-demand price"
    )
    fallback: Literal["on_demand", "none"] = Field("none", description="what to launch when there is no spot capacity")


class MetadataOptions(Frozen):
    """The instance metadata service of the build's machines."""

    http_endpoint: Literal["enabled", "disabled"] = Field(
        "enabled", description="disabled: cloud-init gets no SSH key, so the image must bring its own"
    )
    http_tokens: Literal["required", "optional"] = Field("required", description="required: IMDSv2 only")
    http_put_response_hop_limit: int = Field(1, ge=1, le=64, description="hops that a response may take; containers need 2")


class DeregistrationProtection(Frozen):
    """Protection of the AMIs from being deregistered. `deregistration_protection: true` uses the defaults."""

    enabled: bool = Field(True, description="true: they cannot be deregistered until the protection is removed")
    with_cooldown: bool = Field(False, description="true: the protection lasts for another 24 hours after it is removed")


def _switch(value: object) -> object:
    """Accept `true` for the defaults, and `false` for None."""
    return {} if value is True else None if value is False else value


def _protection(value: object) -> object:
    return {"enabled": value} if isinstance(value, bool) else value


MACHINE_KEYS = {
    "instance_type",
    "volume_size",
    "iam_instance_profile",
    "metadata_options",
    "user_data",
}  # what a step can see of the machine
# properties of the AMIs besides their content. The region is one of them; credentials and the connection are not
IMAGE_KEYS = {
    "ami_name", "ami_description", "ami_regions", "region_kms_key_ids", "ami_users", "ami_org_arns", "ami_ou_arns", "snapshot_users",
    "imds_support", "deprecate_at", "deprecate_after", "deregistration_protection", "tags", "volume_type", "iops", "throughput",
    "encrypted", "kms_key_id", "region",
}  # fmt: skip


class Ec2Spec(BuilderConfig):
    """The EC2 instance that the image is built on, and the properties of its AMIs."""

    sources: ClassVar[tuple[str, ...]] = ("ami", "source_ami_filter", "ssm_parameter", "image")
    publishes: ClassVar[bool] = True
    reaches_host: ClassVar[bool] = False

    kind: Literal["ec2"] = Field(description="name of the builder")
    # account and region
    region: str | None = Field(None, pattern=REGION, description="region of the build; default: the default region of the AWS CLI")
    profile: str | None = Field(None, description="profile of ~/.aws/config")
    assume_role: AssumeRole | None = Field(None, description="IAM role to assume")
    endpoint_url: str | None = Field(None, pattern=r"^https?://\S+$", description="URL of the AWS API, for emulators and private endpoints")
    # the machine
    instance_type: Words = Field(
        min_length=1, description="one instance type, or several in order of preference: the next is tried when there is no capacity"
    )
    subnet_id: Words = Field((), description="one subnet, or several in order of preference")
    subnet_filter: SubnetFilter | None = Field(None, description="search for the subnets, in place of subnet_id")
    vpc_id: str | None = Field(
        None, pattern=r"^vpc-[0-9a-f]{8,17}$", description="VPC of the machine; default: the VPC of the subnet, else the default VPC"
    )
    security_group_ids: Words = Field((), description="security groups; default: a temporary one that allows SSH from this host only")
    temporary_security_group_source_cidrs: Annotated[Words, AfterValidator(_cidrs)] = Field(
        (),
        description="addresses that may connect over SSH; default: this host's address as AWS sees it",
    )
    associate_public_ip_address: bool | None = Field(
        None, description="whether the machine has a public address; default: the setting of the subnet"
    )
    ssh_interface: Literal["public_ip", "private_ip", "session_manager"] = Field(
        "public_ip", description="how bake connects to the machine"
    )
    ssh_bastion_host: str | None = Field(None, description="host to connect through")
    ssh_bastion_port: int = Field(22, ge=1, le=65535, description="port of the bastion host")
    ssh_bastion_username: str | None = Field(None, description="user of the bastion host; default: the configuration of ssh")
    ssh_bastion_private_key_file: Path | None = Field(
        None, description="private key for the bastion host; default: the configuration of ssh"
    )
    iam_instance_profile: str | None = Field(
        None, description="name or ARN of the instance profile, which grants permissions to the machine"
    )
    spot: Annotated[SpotSpec | None, BeforeValidator(_switch, json_schema_input_type=bool | SpotSpec)] = Field(
        None, description="use spot capacity: true, or a mapping"
    )
    volume_size: Annotated[Size, AfterValidator(_whole_gib)] | None = Field(
        None, description="size of the root volume; default: the size in the source"
    )
    volume_type: Literal["gp2", "gp3", "io1", "io2"] = Field("gp3", description="type of the root volume")
    iops: int | None = Field(None, ge=100, le=256000, description="IOPS of a gp3, io1 or io2 volume")
    throughput: int | None = Field(None, ge=125, le=2000, description="MiB/s of a gp3 volume")
    encrypted: bool = Field(True, description="whether the volume and the snapshots are encrypted")
    kms_key_id: str | None = Field(None, description="KMS key to encrypt with; default: the account's default key for EBS")
    metadata_options: MetadataOptions = Field(MetadataOptions(), description="options of the instance metadata service")
    user_data: str | None = Field(None, max_length=12000, description="additional user data for cloud-init")
    user_data_file: Path | None = Field(None, description="file with user data, in place of user_data")
    run_tags: TagMap = Field(
        default_factory=dict, description="tags of the ephemeral resources: instance, volume, interface, security group, key pair"
    )
    # the AMIs
    ami_name: Annotated[str, AfterValidator(_ami_name)] = Field(
        "{name}-{version}-{build}", description="name of the AMIs; {name}, {version} and {build} are replaced"
    )
    ami_description: str | None = Field(
        None, max_length=255, description="description of the AMIs; default: the description of the template"
    )
    ami_regions: Regions = Field((), description="regions that the AMI is copied to")
    region_kms_key_ids: Mapping[str, str] = Field(
        default_factory=dict, description="KMS key to encrypt with, by region; default: the default key of the region for EBS"
    )
    ami_users: Accounts = Field((), description="accounts that may launch the AMIs")
    ami_org_arns: Words = Field((), description="ARNs of organizations that may launch the AMIs")
    ami_ou_arns: Words = Field((), description="ARNs of organizational units that may launch the AMIs")
    snapshot_users: Accounts = Field((), description="accounts that may copy the snapshots, besides ami_users")
    imds_support: Literal["v2.0"] | None = Field(None, description="v2.0: instances of the AMIs accept IMDSv2 only")
    deprecate_at: Annotated[str, AfterValidator(_instant)] | None = Field(None, description="time when the AMIs become deprecated")
    deprecate_after: Duration | None = Field(
        None, gt=0, description="time from the build until the AMIs become deprecated, in place of deprecate_at"
    )
    deregistration_protection: Annotated[
        DeregistrationProtection, BeforeValidator(_protection, json_schema_input_type=bool | DeregistrationProtection)
    ] = Field(DeregistrationProtection(enabled=False), description="true: the AMIs cannot be deregistered by mistake")
    tags: TagMap = Field(default_factory=dict, description="tags of the AMIs and their snapshots")
    # timeouts
    launch_timeout: Duration = Field(600.0, gt=0, description="timeout for the instance to enter the state running")
    ami_timeout: Duration = Field(3600.0, gt=0, description="timeout for the AMI to become available")
    copy_timeout: Duration = Field(7200.0, gt=0, description="timeout for the copies of the AMI to become available")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        _not_both(self, "subnet_id", "subnet_filter")
        _not_both(self, "security_group_ids", "temporary_security_group_source_cidrs")
        _not_both(self, "user_data", "user_data_file")
        _not_both(self, "deprecate_at", "deprecate_after")
        if self.ssh_bastion_host is None and (self.ssh_bastion_username or self.ssh_bastion_private_key_file):
            raise ValueError("ssh_bastion_host is missing")
        if self.ssh_bastion_host and self.ssh_interface == "session_manager":
            raise ValueError("ssh_bastion_host and ssh_interface: session_manager exclude each other: use one of them")
        if self.assume_role and self.ssh_interface == "session_manager":
            raise ValueError("ssh_interface: session_manager cannot use assume_role: use a profile that assumes the role")
        return self

    @model_validator(mode="after")
    def _volume_fits(self) -> Self:
        if self.iops is not None and self.volume_type == "gp2":
            raise ValueError("iops is for gp3, io1 and io2 volumes: the IOPS of a gp2 volume follow from its size")
        if self.iops is None and self.volume_type in ("io1", "io2"):
            raise ValueError(f"iops is missing: an {self.volume_type} volume needs it")
        if self.throughput is not None and self.volume_type != "gp3":
            raise ValueError("throughput is for gp3 volumes")
        if self.kms_key_id and not self.encrypted:
            raise ValueError("kms_key_id names a key, but encrypted is false")
        return self

    @model_validator(mode="after")
    def _can_be_shared(self) -> Self:
        strangers = sorted(set(self.region_kms_key_ids) - {*self.ami_regions, self.region})
        if strangers and self.region:
            raise ValueError(f"region_kms_key_ids has {', '.join(strangers)}, but the image is not copied there: add them to ami_regions")
        if not self.shared or not self.encrypted:
            return self
        words = "an image that is encrypted with an account's default key cannot be used by others"
        if not self.kms_key_id and not self.region_kms_key_ids.get(self.region or ""):
            raise ValueError(f"{words}: kms_key_id is missing, or encrypted: false")
        missing = [region for region in self.ami_regions if region != self.region and region not in self.region_kms_key_ids]
        if missing:
            raise ValueError(f"{words}: region_kms_key_ids lacks {', '.join(missing)}")
        return self

    @property
    def shared(self) -> bool:
        """Whether other accounts may use the images."""
        return bool(self.ami_users or self.ami_org_arns or self.ami_ou_arns or self.snapshot_users)

    def describe(self) -> str:
        return f"ec2, {self.region or 'the default region'}, {' or '.join(self.instance_type)}"

    def machine_spec(self) -> MachineSpec:
        return MachineSpec(disk_size=self.volume_size)

    def machine_key(self, machine: MachineSpec) -> Mapping[str, Any]:
        key: dict[str, Any] = self.model_dump(mode="json", include=MACHINE_KEYS)
        return key | ({"user_data_file": file_digest(self.user_data_file)} if self.user_data_file else {})

    def image_key(self) -> Mapping[str, Any]:
        return self.model_dump(mode="json", include=IMAGE_KEYS)

    def to_record(self) -> Mapping[str, Any]:
        """The keys as the template gives them, which are enough to start another machine from the image."""
        return self.model_dump(mode="json", exclude={"user_data"})


def _not_both(spec: Ec2Spec, one: str, other: str) -> None:
    values: list[Any] = [getattr(spec, one), getattr(spec, other)]
    if all(value not in (None, ()) for value in values):
        raise ValueError(f"{one} and {other} exclude each other: use one of them")
