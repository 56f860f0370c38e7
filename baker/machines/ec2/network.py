"""The key pair and the security group of an instance, and its VPC and subnets."""

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
OWN_ADDRESS_SERVICE = ("checkip.amazonaws.com", "/")  # AWS's service that answers with the address of the client
GROUP_SECONDS = 120.0  # timeout of deleting a group: the interfaces of terminated instances use it for a while
VISIBLE_SECONDS = 60.0  # timeout of finding a group that was just created
LOOKS, LOOK_AGAIN_SECONDS = 3, 2.0  # searches for a key pair whose import was not answered: it may become visible late


@dataclass(frozen=True)
class Placement:
    """Where instances are started: subnets in the order in which they are tried. A single "" leaves the choice to the default VPC."""

    vpc: str
    subnets: tuple[str, ...]
    cidrs: tuple[str, ...]  # the VPC's own addresses


def find_placement(scope: Scope, spec: Ec2Spec) -> Placement:
    """The placement by `subnet_id`, `subnet_filter` and `vpc_id`, else the default VPC. BuildError when there is none."""
    subnets = _subnets(scope, spec)
    vpcs = {subnet["VpcId"] for subnet in subnets}
    if spec.vpc_id:
        strangers = [subnet["SubnetId"] for subnet in subnets if subnet["VpcId"] != spec.vpc_id]
        if strangers:
            message = f"the subnet {strangers[0]} is not in {spec.vpc_id}"
            raise BuildError(message, hint="set builder.subnet_id and vpc_id to match", code="ec2.subnet-not-in-vpc")
        vpcs = {spec.vpc_id}
    if len(vpcs) > 1:
        message = f"the subnets are in several VPCs: {', '.join(sorted(vpcs))}"
        raise BuildError(message, hint="set builder.vpc_id to one of them", code="ec2.several-vpcs")
    with translated(f"the VPC in {scope.region}"):
        if vpcs:
            found = scope.client.describe_vpcs(VpcIds=sorted(vpcs))["Vpcs"]
        else:
            found = scope.client.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not found:
        message = f"there is no default VPC in {scope.region}"
        raise BuildError(message, hint="set builder.subnet_id, subnet_filter or vpc_id", code="ec2.no-default-vpc")
    cidrs = tuple(each["CidrBlock"] for each in found[0].get("CidrBlockAssociationSet", ()) or [found[0]])
    return Placement(found[0]["VpcId"], tuple(subnet["SubnetId"] for subnet in subnets) or ("",), cidrs)


def _subnets(scope: Scope, spec: Ec2Spec) -> list[dict[str, Any]]:
    subnet_filter = spec.subnet_filter
    if subnet_filter is None and not spec.subnet_id and not spec.vpc_id:
        return []
    with translated(f"the subnets in {scope.region}"):
        if spec.subnet_id:
            found: list[dict[str, Any]] = scope.client.describe_subnets(SubnetIds=list(spec.subnet_id))["Subnets"]
            return sorted(found, key=lambda subnet: spec.subnet_id.index(subnet["SubnetId"]))
        conditions = [{"Name": name, "Values": list(values)} for name, values in (subnet_filter.filters if subnet_filter else {}).items()]
        if spec.vpc_id:
            conditions.append({"Name": "vpc-id", "Values": [spec.vpc_id]})
        found = scope.client.describe_subnets(Filters=conditions)["Subnets"]
    if not found:
        fits = "matches builder.subnet_filter" if subnet_filter else f"is in {spec.vpc_id}"
        raise BuildError(f"no subnet in {scope.region} {fits}", hint="aws ec2 describe-subnets lists the subnets", code="ec2.no-subnet")
    if subnet_filter is None or subnet_filter.most_free:
        return sorted(found, key=lambda subnet: -subnet.get("AvailableIpAddressCount", 0))
    return found


# -- the key pair -------------------------------------------------------------------------------------------------------------


def make_key_pair(scope: Scope, public_key: str, resources: Resources) -> str:
    """Import the public half of the machine's key into EC2. Returns the name of the key pair."""
    name, known = scope.title, list[str]()
    resources.enter(KEY_PAIR, lambda: delete_key_pair(scope, name, known), **scope.details, name=name)
    with translated(f"the key pair {name}"):
        try:
            made = scope.client.import_key_pair(
                KeyName=name, PublicKeyMaterial=public_key.encode(), TagSpecifications=scope.tag_specifications("key-pair")
            )
            known.append(made["KeyPairId"])
        except Exception as error:
            if code_of(error) != "InvalidKeyPair.Duplicate":  # the first answer was lost: nobody else uses this name
                raise
    return name


def delete_key_pair(scope: Scope, name: str, known: Sequence[str] = ()) -> None:
    """Delete the key pair with this name; `known` has its id if that is known.

    The request has the id and not the name: a request for a name that does not exist is denied by a policy that demands the build's tag.
    """
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
    """Create a security group that allows SSH from `cidrs`. Returns its id."""
    name, known = scope.title, list[str]()
    resources.enter(SECURITY_GROUP, lambda: delete_group(scope, name, known), **scope.details, name=name)
    group = _create_group(scope, name, vpc)
    known.append(group)
    if cidrs:
        what = f"the security group {group} is not visible"
        wait(lambda: _allow_ssh(scope, group, cidrs), what, timeout=VISIBLE_SECONDS, clock=scope.aws.clock)
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
            what = f"the security group {name} is not visible"
            made = wait(partial(_first_group, scope, name), what, timeout=VISIBLE_SECONDS, clock=scope.aws.clock)
    return str(made["GroupId"])


def _first_group(scope: Scope, name: str) -> dict[str, Any] | None:
    with translated(f"the security group {name}"):
        return next(iter(_groups(scope, name)), None)


def _allow_ssh(scope: Scope, group: str, cidrs: Sequence[str]) -> bool:
    description = f"bake build {scope.build}"
    four = [{"CidrIp": each, "Description": description} for each in cidrs if ip_network(each).version == 4]
    six = [{"CidrIpv6": each, "Description": description} for each in cidrs if ip_network(each).version == 6]
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
    """Delete the group with this name; `known` has its id if that is known. Waits while interfaces of terminated instances use it."""

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


# -- addresses that may connect -----------------------------------------------------------------------------------------------


def allowed_cidrs(scope: Scope, spec: Ec2Spec, placement: Placement, own_address: Callable[[Any], str]) -> tuple[str, ...]:
    """The networks from which SSH is allowed: none for Session Manager, the VPC for a private address, else this host."""
    if spec.temporary_security_group_source_cidrs:
        return spec.temporary_security_group_source_cidrs
    if spec.ssh_interface == "session_manager":
        return ()
    if spec.ssh_bastion_host or spec.ssh_interface == "private_ip":
        return placement.cidrs
    address = ip_address(own_address(scope.client))
    return (f"{address}/{address.max_prefixlen}",)


def own_address(client: Any) -> str:
    """This host's address as AWS sees it: the loopback address when `client` talks to this host. HostError when it cannot be determined."""
    host = urlsplit(str(client.meta.endpoint_url)).hostname or ""
    try:
        where = ip_address(socket.gethostbyname(host)) if host else None
        if where is not None and where.is_loopback:
            return "127.0.0.1"
        return _ask_for_address()
    except (OSError, ValueError) as error:
        raise HostError(
            f"cannot determine this host's public address: {error}",
            hint="set builder.temporary_security_group_source_cidrs",
            code="ec2.own-address",
        ) from error


def _ask_for_address() -> str:
    from http.client import HTTPSConnection

    name, path = OWN_ADDRESS_SERVICE
    connection = HTTPSConnection(name, timeout=10)
    try:
        connection.request("GET", path)
        return str(ip_address(connection.getresponse().read(64).decode().strip()))
    finally:
        connection.close()


def code_of(error: Exception) -> str:
    """AWS's error code of an exception of boto3; "" for other exceptions."""
    answer = getattr(error, "response", None)  # None where the connection broke
    return str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, dict) else ""
