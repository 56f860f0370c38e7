"""What stands around an instance: its key pair, its security group, and where it is put."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from baker.aws.errors import AwsError, translated
from baker.aws.images import ignore_missing
from baker.aws.waiter import wait
from baker.core.errors import BuildError, HostError
from baker.core.resources import Resources
from baker.machines.ec2.scope import KEY_PAIR, SECURITY_GROUP, Scope, filters
from baker.template.ec2 import Ec2Spec

SSH_PORT = 22
WHO_AM_I = ("checkip.amazonaws.com", "/")  # AWS's own service that answers with the asker's address
GROUP_SECONDS = 120.0  # for a group to be let go of by the interfaces of what has been terminated
VISIBLE_SECONDS = 60.0
LOOKS, LOOK_AGAIN_SECONDS = 3, 2.0  # at a key pair whose answer was lost: it may become visible late


@dataclass(frozen=True)
class Placement:
    """Where instances can be put: subnets in the order in which they are tried; one "" where the default VPC chooses."""

    vpc: str
    subnets: tuple[str, ...]
    cidrs: tuple[str, ...]  # the VPC's own addresses


def find_placement(scope: Scope, spec: Ec2Spec) -> Placement:
    """Of subnet_id, subnet_filter and vpc_id, else the default VPC. BuildError when there is none such."""
    subnets = _subnets(scope, spec)
    vpcs = {subnet["VpcId"] for subnet in subnets}
    if spec.vpc_id:
        strangers = [subnet["SubnetId"] for subnet in subnets if subnet["VpcId"] != spec.vpc_id]
        if strangers:
            raise BuildError(f"the subnet {strangers[0]} is not in {spec.vpc_id}")
        vpcs = {spec.vpc_id}
    if len(vpcs) > 1:
        raise BuildError(f"the subnets are in several VPCs: {', '.join(sorted(vpcs))}", hint="builder.vpc_id says which is meant")
    with translated(f"the VPC in {scope.region}"):
        if vpcs:
            found = scope.client.describe_vpcs(VpcIds=sorted(vpcs))["Vpcs"]
        else:
            found = scope.client.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not found:
        raise BuildError(f"there is no default VPC in {scope.region}", hint="builder.subnet_id or subnet_filter says where to build")
    cidrs = tuple(each["CidrBlock"] for each in found[0].get("CidrBlockAssociationSet", ()) or [found[0]])
    return Placement(found[0]["VpcId"], tuple(subnet["SubnetId"] for subnet in subnets) or ("",), cidrs)


def _subnets(scope: Scope, spec: Ec2Spec) -> list[dict[str, Any]]:
    wanted = spec.subnet_filter
    if wanted is None and not spec.subnet_id and not spec.vpc_id:
        return []
    with translated(f"the subnets in {scope.region}"):
        if spec.subnet_id:
            found: list[dict[str, Any]] = scope.client.describe_subnets(SubnetIds=list(spec.subnet_id))["Subnets"]
            return sorted(found, key=lambda subnet: spec.subnet_id.index(subnet["SubnetId"]))
        asked = [{"Name": name, "Values": list(values)} for name, values in (wanted.filters if wanted else {}).items()]
        if spec.vpc_id:
            asked.append({"Name": "vpc-id", "Values": [spec.vpc_id]})
        found = scope.client.describe_subnets(Filters=asked)["Subnets"]
    if not found:
        fits = "fits builder.subnet_filter" if wanted else f"is in {spec.vpc_id}"
        raise BuildError(f"no subnet in {scope.region} {fits}")
    if wanted is None or wanted.most_free:
        return sorted(found, key=lambda subnet: -subnet.get("AvailableIpAddressCount", 0))
    return found


# -- the key pair -------------------------------------------------------------------------------------------------------------


def make_key_pair(scope: Scope, public_key: str, resources: Resources) -> str:
    """Hand AWS the public half of the machine's key; its name there."""
    name, known = scope.title, list[str]()
    resources.enter(KEY_PAIR, lambda: delete_key_pair(scope, name, known), **scope.details, name=name)
    with translated(f"the key pair {name}"):
        try:
            made = scope.client.import_key_pair(
                KeyName=name, PublicKeyMaterial=public_key.encode(), TagSpecifications=scope.tag_specifications("key-pair")
            )
            known.append(made["KeyPairId"])
        except Exception as error:
            if code_of(error) != "InvalidKeyPair.Duplicate":  # an answer that was lost: the name is nobody else's
                raise
    return name


def delete_key_pair(scope: Scope, name: str, known: Sequence[str] = ()) -> None:
    """Delete the key pair with this name, whose id may be known. Not by its name: where none has it there is no tag, and a policy that asks
    for the build's tag denies it."""
    for number in range(1 if known else LOOKS):
        if number:
            scope.aws.clock.sleep(LOOK_AGAIN_SECONDS * number)
        with ignore_missing(), translated(f"delete the key pair {name}"):
            for key in known or [each["KeyPairId"] for each in _key_pairs(scope, name)]:
                scope.client.delete_key_pair(KeyPairId=key)


def _key_pairs(scope: Scope, name: str) -> list[dict[str, Any]]:
    return list(scope.client.describe_key_pairs(Filters=filters(key_name=name))["KeyPairs"])


# -- the security group -------------------------------------------------------------------------------------------------------


def make_group(scope: Scope, vpc: str, cidrs: Sequence[str], resources: Resources) -> str:
    """A group that lets SSH in from `cidrs`; its id."""
    name, known = scope.title, list[str]()
    resources.enter(SECURITY_GROUP, lambda: delete_group(scope, name, known), **scope.details, name=name)
    group = _create_group(scope, name, vpc)
    known.append(group)
    if cidrs:
        wait(lambda: _let_in(scope, group, cidrs), f"the security group {group}", timeout=VISIBLE_SECONDS, clock=scope.aws.clock)
    return group


def _create_group(scope: Scope, name: str, vpc: str) -> str:
    with translated(f"the security group {name}"):
        try:
            made = scope.client.create_security_group(
                GroupName=name,
                Description=f"SSH for the bake build {scope.build}",
                VpcId=vpc,
                TagSpecifications=scope.tag_specifications("security-group"),
            )
        except Exception as error:
            if code_of(error) != "InvalidGroup.Duplicate":
                raise
            made = wait(partial(_first_group, scope, name), f"the security group {name}", timeout=VISIBLE_SECONDS, clock=scope.aws.clock)
    return str(made["GroupId"])


def _first_group(scope: Scope, name: str) -> dict[str, Any] | None:
    with translated(f"the security group {name}"):
        return next(iter(_groups(scope, name)), None)


def _let_in(scope: Scope, group: str, cidrs: Sequence[str]) -> bool:
    words = f"bake build {scope.build}"
    four = [{"CidrIp": each, "Description": words} for each in cidrs if ip_network(each).version == 4]
    six = [{"CidrIpv6": each, "Description": words} for each in cidrs if ip_network(each).version == 6]
    rule: dict[str, Any] = {"IpProtocol": "tcp", "FromPort": SSH_PORT, "ToPort": SSH_PORT}
    rule |= {"IpRanges": four} if four else {}
    rule |= {"Ipv6Ranges": six} if six else {}
    with translated(f"the security group {group}"):
        try:
            scope.client.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
        except Exception as error:
            if code_of(error) != "InvalidPermission.Duplicate":
                raise
    return True


def _groups(scope: Scope, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = scope.client.describe_security_groups(Filters=[{"Name": "group-name", "Values": [name]}])[
        "SecurityGroups"
    ]
    return found


def delete_group(scope: Scope, name: str, known: Sequence[str] = ()) -> None:
    """Delete the group with this name, whose id may be known. It takes a while until the interfaces
    of terminated instances have let go of it."""

    def look() -> bool | None:
        try:
            with ignore_missing(), translated(f"delete the security group {name}"):
                for group in known or [each["GroupId"] for each in _groups(scope, name)]:
                    scope.client.delete_security_group(GroupId=group)
        except AwsError as error:
            if error.aws_code != "DependencyViolation":
                raise
            return None
        return True

    wait(look, f"the security group {name} is still in use", timeout=GROUP_SECONDS, clock=scope.aws.clock)


# -- who may come in ----------------------------------------------------------------------------------------------------------


def allowed_cidrs(scope: Scope, spec: Ec2Spec, placement: Placement, own_address: Callable[[Any], str]) -> tuple[str, ...]:
    """From where SSH is let in. Session Manager needs nobody to be; a private address is reached from inside the VPC."""
    if spec.temporary_security_group_source_cidrs:
        return spec.temporary_security_group_source_cidrs
    if spec.ssh_interface == "session_manager":
        return ()
    if spec.ssh_bastion_host or spec.ssh_interface == "private_ip":
        return placement.cidrs
    address = ip_address(own_address(scope.client))
    return (f"{address}/{address.max_prefixlen}",)


def own_address(client: Any) -> str:
    """This host's address as AWS sees it: of an AWS on this host, the loopback's. HostError when it cannot be found out."""
    host = urlsplit(str(client.meta.endpoint_url)).hostname or ""
    try:
        where = ip_address(socket.gethostbyname(host)) if host else None
        if where is not None and where.is_loopback:
            return "127.0.0.1"
        return _ask_for_address()
    except (OSError, ValueError) as error:
        raise HostError(
            f"this host's public address cannot be found out: {error}", hint="builder.temporary_security_group_source_cidrs names it"
        ) from error


def _ask_for_address() -> str:
    from http.client import HTTPSConnection

    name, path = WHO_AM_I
    connection = HTTPSConnection(name, timeout=10)
    try:
        connection.request("GET", path)
        return str(ip_address(connection.getresponse().read(64).decode().strip()))
    finally:
        connection.close()


def code_of(error: Exception) -> str:
    """AWS's word for an error of boto3, "" for others."""
    answer = getattr(error, "response", None)  # None where the connection broke
    return str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, dict) else ""
