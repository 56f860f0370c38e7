"""EC2 instances: start one where there is capacity, wait for its states, stop it, terminate it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from baker.aws.errors import AwsError, translated
from baker.aws.images import ignore_missing
from baker.aws.waiter import INVISIBLE_SECONDS, wait
from baker.core.errors import BuildError
from baker.core.model import Ami
from baker.core.resources import Resources
from baker.machines.ec2.network import Placement
from baker.machines.ec2.scope import INSTANCE, Scope, filters
from baker.template.ec2 import GIB, Ec2Spec

# Errors that another instance type, subnet or market may avoid. Source: Amazon EC2 API Reference, "Error codes".
NO_CAPACITY = frozenset(
    {
        "InsufficientInstanceCapacity", "InsufficientHostCapacity", "InsufficientCapacity", "Unsupported", "InstanceLimitExceeded",
        "VcpuLimitExceeded", "MaxSpotInstanceCountExceeded", "SpotMaxPriceTooLow", "InsufficientFreeAddressesInSubnet",
    }
)  # fmt: skip
GONE = ("shutting-down", "terminated")
TERMINATE_SECONDS = 600.0  # timeout of a termination
LOOKS, LOOK_AGAIN_SECONDS = 4, 2.0  # searches for instances whose start was not answered: they may become visible late


@dataclass(frozen=True)
class Attempt:
    """One request for an instance. `number` counts from 1, and is part of the client token, which makes the request idempotent."""

    number: int
    instance_type: str
    subnet: str
    spot: bool

    @property
    def title(self) -> str:
        return f"{self.instance_type}{' (spot)' if self.spot else ''}{f' in {self.subnet}' if self.subnet else ''}"


@dataclass(frozen=True)
class InstanceRequest:
    """The parameters that all attempts share."""

    ami: Ami
    key_name: str
    groups: tuple[str, ...]
    user_data: str


@dataclass
class Started:
    """The instances of one machine that have to be terminated. Answers of AWS may be lost, so instances are also searched by tag."""

    instances: dict[str, float] = field(default_factory=dict)  # id -> time of the start by the clock's `now`; -inf when unknown
    requests: set[str] = field(default_factory=set)  # ids of spot requests
    unanswered: bool = False  # whether there may be an instance whose start was not answered


class NoCapacity(Exception):
    """AWS has no capacity for this attempt; another attempt may succeed. `reason` is AWS's message."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def attempts(spec: Ec2Spec, placement: Placement) -> Iterator[Attempt]:
    """Every instance type in every subnet: as spot if the template asks for it, then on demand if there is no spot or it may fall back."""
    number = 0
    markets = [True] if spec.spot else [False]
    if spec.spot and spec.spot.fallback == "on_demand":
        markets.append(False)
    for spot in markets:
        for instance_type in spec.instance_type:
            for subnet in placement.subnets:
                number += 1
                yield Attempt(number, instance_type, subnet, spot)


def run(
    scope: Scope, spec: Ec2Spec, placement: Placement, common: InstanceRequest, *, resources: Resources, warn: Callable[[str], None]
) -> tuple[dict[str, Any], Attempt]:
    """Start an instance, and wait until it runs. Returns DescribeInstances' answer and the attempt that succeeded.

    BuildError when no attempt finds capacity, or when the instance ends instead of running.
    """
    started, spot = Started(), spec.spot is not None
    resources.enter(INSTANCE, lambda: terminate(scope, started, spot=spot), **scope.details, name=scope.title, spot=spot)
    reasons: list[str] = []
    for attempt in attempts(spec, placement):
        try:
            return wait_running(scope, _start(scope, spec, common, attempt, started), spec.launch_timeout), attempt
        except NoCapacity as error:
            reasons.append(f"{attempt.title}: {error.reason}")
            warn(f"no capacity for {reasons[-1]}")
        if attempt.spot:
            _cancel(scope, started)  # a persistent request would start an instance as soon as there is capacity
    raise BuildError(
        "EC2 has no capacity for this build:\n  " + "\n  ".join(reasons),
        hint="builder.instance_type and subnet_id may be lists; spot: {fallback: on_demand} tries on-demand instances as well",
        code="ec2.no-capacity",
    )


def _start(scope: Scope, spec: Ec2Spec, common: InstanceRequest, attempt: Attempt, started: Started) -> str:
    """Start an instance, and note it in `started`. Returns its id. NoCapacity when another attempt may succeed."""
    request = parameters(scope, spec, common, attempt)

    def ask() -> dict[str, Any]:
        with translated(f"start an instance ({attempt.title})"):
            return dict(scope.client.run_instances(**request)["Instances"][0])

    complete, started.unanswered = not started.unanswered, True
    try:  # `wait` ignores "not found" at first: the key pair and the group were just created and may not be visible yet
        made = wait(ask, f"no instance was started ({attempt.title})", timeout=spec.launch_timeout, clock=scope.aws.clock)
    except AwsError as error:
        if error.aws_code in NO_CAPACITY:
            raise NoCapacity(error.message) from error
        raise
    started.instances[made["InstanceId"]] = scope.aws.clock.now()
    _note_request(made, started)
    started.unanswered = not complete
    return str(made["InstanceId"])


def parameters(scope: Scope, spec: Ec2Spec, common: InstanceRequest, attempt: Attempt) -> dict[str, Any]:
    """The parameters of RunInstances."""
    found: dict[str, Any] = {
        "ImageId": common.ami.id,
        "InstanceType": attempt.instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": f"{scope.title}-{attempt.number}",
        "KeyName": common.key_name,
        "UserData": common.user_data,
        "BlockDeviceMappings": _volumes(scope, spec, common.ami),
        "MetadataOptions": {
            "HttpEndpoint": spec.metadata_options.http_endpoint,
            "HttpTokens": spec.metadata_options.http_tokens,
            "HttpPutResponseHopLimit": spec.metadata_options.http_put_response_hop_limit,
        },
        "TagSpecifications": scope.tag_specifications(
            "instance", "volume", "network-interface", *(["spot-instances-request"] if attempt.spot else [])
        ),
    } | _network(spec, common, attempt)
    if spec.iam_instance_profile:
        kind = "Arn" if spec.iam_instance_profile.startswith("arn:") else "Name"
        found["IamInstanceProfile"] = {kind: spec.iam_instance_profile}
    if attempt.spot and spec.spot:
        found["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": _market(spec.spot.max_price)}
    else:
        found["InstanceInitiatedShutdownBehavior"] = "stop"
    return found


def _market(max_price: str | None) -> dict[str, str]:
    """The spot options. The request is persistent, because a one-time spot instance cannot be stopped, and only a stopped instance is
    captured. `terminate` cancels it."""
    options = {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"}
    return options | ({"MaxPrice": max_price} if max_price else {})


def _volumes(scope: Scope, spec: Ec2Spec, ami: Ami) -> list[dict[str, Any]]:
    """The volumes of the instance: the root volume as the template wants it, the others as the AMI has them.

    All are deleted with the instance, whatever the AMI says, because the ledger has no entries for volumes.
    """
    others = [name for name in ami.devices if name != ami.root_device]
    found = [{"DeviceName": ami.root_device, "Ebs": _volume(scope, spec, ami)}]
    return found + [{"DeviceName": name, "Ebs": {"DeleteOnTermination": True} | _encryption(scope, spec, ami)} for name in others]


def _encryption(scope: Scope, spec: Ec2Spec, ami: Ami) -> dict[str, Any]:
    if not spec.encrypted and not ami.encrypted:
        return {}
    key = spec.kms_key_id or spec.region_kms_key_ids.get(scope.region)
    return {"Encrypted": True} | ({"KmsKeyId": key} if key else {})


def _volume(scope: Scope, spec: Ec2Spec, ami: Ami) -> dict[str, Any]:
    volume: dict[str, Any] = {"DeleteOnTermination": True, "VolumeType": spec.volume_type} | _encryption(scope, spec, ami)
    if spec.volume_size:
        volume["VolumeSize"] = spec.volume_size // GIB
    for key, value in (("Iops", spec.iops), ("Throughput", spec.throughput)):
        volume |= {key: value} if value is not None else {}
    return volume


def _network(spec: Ec2Spec, common: InstanceRequest, attempt: Attempt) -> dict[str, Any]:
    public = spec.associate_public_ip_address
    if public is None:
        found: dict[str, Any] = {"SecurityGroupIds": list(common.groups)}
        return found | ({"SubnetId": attempt.subnet} if attempt.subnet else {})
    card: dict[str, Any] = {
        "DeviceIndex": 0,
        "Groups": list(common.groups),
        "AssociatePublicIpAddress": public,
        "DeleteOnTermination": True,
    }
    return {"NetworkInterfaces": [card | ({"SubnetId": attempt.subnet} if attempt.subnet else {})]}


# -- states -------------------------------------------------------------------------------------------------------------------


def describe(scope: Scope, instance: str) -> dict[str, Any]:
    """DescribeInstances' answer for one instance. AwsError (`missing`) when it does not exist or is not visible yet."""
    with translated(f"the instance {instance}"):
        answer = scope.client.describe_instances(InstanceIds=[instance])
    for reservation in answer["Reservations"]:
        for found in reservation["Instances"]:
            return dict(found)
    message = f"there is no instance {instance} in {scope.region}"
    raise AwsError(message, aws_code="InvalidInstanceID.NotFound", action="DescribeInstances", code="aws.not-found")


def reason(found: Mapping[str, Any]) -> str:
    """AWS's reason for the state of an instance, given DescribeInstances' answer."""
    state_reason = found.get("StateReason") or {}
    return str(state_reason.get("Message") or found.get("StateTransitionReason") or "AWS gives no reason")


def wait_running(scope: Scope, instance: str, timeout: float) -> dict[str, Any]:
    """Wait until an instance runs. Returns DescribeInstances' answer. NoCapacity or BuildError when it ends instead, AwsError after
    `timeout` seconds."""

    def look() -> dict[str, Any] | None:
        found = describe(scope, instance)
        state = found["State"]["Name"]
        if state == "running":
            return found
        if state == "pending":
            return None
        code = str((found.get("StateReason") or {}).get("Code", ""))
        if code.removeprefix("Server.").removeprefix("Client.") in NO_CAPACITY:
            raise NoCapacity(reason(found))
        raise BuildError(f"the instance {instance} is {state} instead of running: {reason(found)}", code="ec2.instance-failed")

    return wait(look, f"the instance {instance} is not running", timeout=timeout, clock=scope.aws.clock, first=1.0)


def stop(scope: Scope, instance: str, timeout: float) -> None:
    """Shut down the guest of an instance and wait until it is stopped. BuildError when it is terminated instead, AwsError after `timeout`
    seconds."""
    with translated(f"stop the instance {instance}"):
        scope.client.stop_instances(InstanceIds=[instance])

    def look() -> bool | None:
        found = describe(scope, instance)
        state = found["State"]["Name"]
        if state in GONE:
            raise BuildError(f"the instance {instance} is {state} instead of stopped: {reason(found)}", code="ec2.instance-terminated")
        return True if state == "stopped" else None

    wait(look, f"the instance {instance} is not stopped", timeout=timeout, clock=scope.aws.clock, first=1.0)


# -- removal ------------------------------------------------------------------------------------------------------------------


def terminate(scope: Scope, started: Started | None = None, *, spot: bool = False) -> None:
    """Terminate the machine's instances, and wait for it: their security group can be deleted only then.

    These are the instances in `started` and those with the machine's tags: the answer to a start may have been lost, and a persistent
    spot request starts instances by itself.
    """
    known = started or Started(unanswered=True)
    ended: set[str] = set()
    for number in range(LOOKS if known.unanswered else 2 if spot else 1):
        if number:
            scope.aws.clock.sleep(LOOK_AGAIN_SECONDS * number)
        _find(scope, known)
        if spot:
            _cancel(scope, known)  # before the termination: a persistent request would start another instance
        for instance in [each for each in known.instances if each not in ended]:
            _end(scope, instance, known)
            ended.add(instance)


def _end(scope: Scope, instance: str, known: Started) -> None:
    """Terminate one instance. While it is new, "not found" may mean that it is not visible yet; later, that it no longer exists."""
    clock = scope.aws.clock

    def ask() -> bool:
        with translated(f"terminate the instance {instance}"):
            scope.client.terminate_instances(InstanceIds=[instance])
        return True

    what = f"the instance {instance} is not terminated"
    invisible = INVISIBLE_SECONDS - (clock.now() - known.instances[instance])
    with ignore_missing():
        wait(ask, what, timeout=TERMINATE_SECONDS, clock=clock, first=1.0, invisible=invisible)
        wait(partial(_terminated, scope, instance, known), what, timeout=TERMINATE_SECONDS, clock=clock, first=1.0, invisible=invisible)


def _terminated(scope: Scope, instance: str, known: Started) -> bool | None:
    found = describe(scope, instance)
    _note_request(found, known)
    return True if found["State"]["Name"] == "terminated" else None


def _find(scope: Scope, known: Started) -> None:
    """Search for the machine's instances, and note those that are not terminated. A new instance may not be visible yet."""
    with translated(f"the instances of the build {scope.build}"):
        pages = scope.client.get_paginator("describe_instances").paginate(Filters=filters(build=scope.build, machine=scope.machine))
        found = [instance for page in pages for reservation in page["Reservations"] for instance in reservation["Instances"]]
    for instance in found:
        _note_request(instance, known)
        if instance["State"]["Name"] != "terminated":
            known.instances.setdefault(instance["InstanceId"], float("-inf"))


def _note_request(found: Mapping[str, Any], known: Started) -> None:
    if request := found.get("SpotInstanceRequestId"):
        known.requests.add(str(request))


def _cancel(scope: Scope, known: Started) -> None:
    """Cancel the machine's spot requests, and note the instances that they started."""
    with translated("the spot requests of the build"):
        answer = scope.client.describe_spot_instance_requests(Filters=filters(build=scope.build, machine=scope.machine))
    over: set[str] = set()
    for each in answer["SpotInstanceRequests"]:
        if each.get("InstanceId"):
            known.instances.setdefault(each["InstanceId"], float("-inf"))
        (known.requests if each["State"] in ("open", "active", "disabled") else over).add(each["SpotInstanceRequestId"])

    def ask(request: str) -> bool:
        with translated(f"cancel the spot request {request}"):
            scope.client.cancel_spot_instance_requests(SpotInstanceRequestIds=[request])
        return True

    for request in sorted(known.requests - over):
        with ignore_missing():
            wait(partial(ask, request), f"the spot request {request}", timeout=TERMINATE_SECONDS, clock=scope.aws.clock)
