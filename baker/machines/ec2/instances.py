"""Instances: started where there is capacity, waited for, stopped, terminated."""

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

# What another instance type, subnet or market may help against. EC2's API reference, "Error codes".
NO_CAPACITY = frozenset(
    {
        "InsufficientInstanceCapacity", "InsufficientHostCapacity", "InsufficientCapacity", "Unsupported", "InstanceLimitExceeded",
        "VcpuLimitExceeded", "MaxSpotInstanceCountExceeded", "SpotMaxPriceTooLow", "InsufficientFreeAddressesInSubnet",
    }
)  # fmt: skip
GONE = ("shutting-down", "terminated")
TERMINATE_SECONDS, LOOK_AGAIN_SECONDS, LOOKS = 600.0, 2.0, 4


@dataclass(frozen=True)
class Attempt:
    """One way to get an instance. `number` from 1: each has a client token of its own."""

    number: int
    instance_type: str
    subnet: str
    spot: bool

    @property
    def title(self) -> str:
        return f"{self.instance_type}{' (spot)' if self.spot else ''}{f' in {self.subnet}' if self.subnet else ''}"


@dataclass(frozen=True)
class InstanceRequest:
    """What all attempts have in common."""

    ami: Ami
    key_name: str
    groups: tuple[str, ...]
    user_data: str


@dataclass
class Started:
    """What is known of one machine's instances, for taking them away: the answers may be incomplete, so tags are looked for as well."""

    instances: dict[str, float] = field(default_factory=dict)  # id: when it was started; -inf where that is not known
    requests: set[str] = field(default_factory=set)  # ids of spot requests
    unanswered: bool = False  # whether there may be an instance that no answer told of


class NoCapacity(Exception):
    """This attempt does not get an instance; another one may. `reason` is AWS's."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def attempts(spec: Ec2Spec, placement: Placement) -> Iterator[Attempt]:
    """Every instance type in every subnet, as spot first where that is wanted; on demand then, where it may be."""
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
    scope: Scope, spec: Ec2Spec, placement: Placement, wanted: InstanceRequest, *, resources: Resources, warn: Callable[[str], None]
) -> tuple[dict[str, Any], Attempt]:
    """A running instance, described, and how it was got. BuildError when there is no capacity anywhere, or it does not come to run."""
    started, spot = Started(), spec.spot is not None
    resources.enter(INSTANCE, lambda: terminate(scope, started, spot=spot), **scope.details, name=scope.title, spot=spot)
    reasons: list[str] = []
    for attempt in attempts(spec, placement):
        try:
            return wait_running(scope, _start(scope, spec, wanted, attempt, started), spec.launch_timeout), attempt
        except NoCapacity as error:
            reasons.append(f"{attempt.title}: {error.reason}")
            warn(f"no capacity for {reasons[-1]}")
        if attempt.spot:
            _cancel(scope, started)  # else it starts an instance as soon as there is capacity
    raise BuildError(
        "EC2 has no capacity for this build:\n  " + "\n  ".join(reasons),
        hint="builder.instance_type and subnet_id may be lists; spot: {fallback: on_demand}",
    )


def _start(scope: Scope, spec: Ec2Spec, wanted: InstanceRequest, attempt: Attempt, started: Started) -> str:
    asked = parameters(scope, spec, wanted, attempt)

    def ask() -> dict[str, Any]:
        with translated(f"start an instance ({attempt.title})"):
            return dict(scope.client.run_instances(**asked)["Instances"][0])

    complete, started.unanswered = not started.unanswered, True
    try:  # "not found" is waited through: the key and the group have just been made
        made = wait(ask, f"no instance is started ({attempt.title})", timeout=spec.launch_timeout, clock=scope.aws.clock)
    except AwsError as error:
        if error.aws_code in NO_CAPACITY:
            raise NoCapacity(error.message) from error
        raise
    started.instances[made["InstanceId"]] = scope.aws.clock.now()
    _note_request(made, started)
    started.unanswered = not complete
    return str(made["InstanceId"])


def parameters(scope: Scope, spec: Ec2Spec, wanted: InstanceRequest, attempt: Attempt) -> dict[str, Any]:
    """RunInstances' parameters."""
    found: dict[str, Any] = {
        "ImageId": wanted.ami.id,
        "InstanceType": attempt.instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": f"{scope.title}-{attempt.number}",
        "KeyName": wanted.key_name,
        "UserData": wanted.user_data,
        "BlockDeviceMappings": _volumes(scope, spec, wanted.ami),
        "MetadataOptions": {
            "HttpEndpoint": spec.metadata_options.http_endpoint,
            "HttpTokens": spec.metadata_options.http_tokens,
            "HttpPutResponseHopLimit": spec.metadata_options.http_put_response_hop_limit,
        },
        "TagSpecifications": scope.tag_specifications(
            "instance", "volume", "network-interface", *(["spot-instances-request"] if attempt.spot else [])
        ),
    } | _network(spec, wanted, attempt)
    if spec.iam_instance_profile:
        kind = "Arn" if spec.iam_instance_profile.startswith("arn:") else "Name"
        found["IamInstanceProfile"] = {kind: spec.iam_instance_profile}
    if attempt.spot and spec.spot:
        found["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": _market(spec.spot.max_price)}
    else:
        found["InstanceInitiatedShutdownBehavior"] = "stop"
    return found


def _market(max_price: str | None) -> dict[str, str]:
    """Persistent: a one-time spot instance cannot be stopped, and only a stopped one is captured. The request is cancelled at the end."""
    options = {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"}
    return options | ({"MaxPrice": max_price} if max_price else {})


def _volumes(scope: Scope, spec: Ec2Spec, ami: Ami) -> list[dict[str, Any]]:
    """All volumes go with the instance, whatever the AMI says: no ledger has them. The root's is as the template wants it."""
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


def _network(spec: Ec2Spec, wanted: InstanceRequest, attempt: Attempt) -> dict[str, Any]:
    public = spec.associate_public_ip_address
    if public is None:
        found: dict[str, Any] = {"SecurityGroupIds": list(wanted.groups)}
        return found | ({"SubnetId": attempt.subnet} if attempt.subnet else {})
    card: dict[str, Any] = {
        "DeviceIndex": 0,
        "Groups": list(wanted.groups),
        "AssociatePublicIpAddress": public,
        "DeleteOnTermination": True,
    }
    return {"NetworkInterfaces": [card | ({"SubnetId": attempt.subnet} if attempt.subnet else {})]}


# -- looking ------------------------------------------------------------------------------------------------------------------


def describe(scope: Scope, instance: str) -> dict[str, Any]:
    """DescribeInstances' answer for one. AwsError with `missing` when it does not exist (or not yet)."""
    with translated(f"the instance {instance}"):
        answer = scope.client.describe_instances(InstanceIds=[instance])
    for reservation in answer["Reservations"]:
        for found in reservation["Instances"]:
            return dict(found)
    raise AwsError(f"there is no instance {instance} in {scope.region}", aws_code="InvalidInstanceID.NotFound", action="DescribeInstances")


def reason(found: Mapping[str, Any]) -> str:
    """Why an instance is in its state, in AWS's words."""
    told = found.get("StateReason") or {}
    return str(told.get("Message") or found.get("StateTransitionReason") or "AWS does not say why")


def wait_running(scope: Scope, instance: str, timeout: float) -> dict[str, Any]:
    """The description of an instance that runs. NoCapacity or BuildError when it never will."""

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
        raise BuildError(f"the instance {instance} is {state} instead of running: {reason(found)}")

    return wait(look, f"the instance {instance} does not run", timeout=timeout, clock=scope.aws.clock, first=1.0)


def stop(scope: Scope, instance: str, timeout: float) -> None:
    """Stop an instance, its guest first. BuildError when it is terminated instead, AwsError when it does not stop in time."""
    with translated(f"stop the instance {instance}"):
        scope.client.stop_instances(InstanceIds=[instance])

    def look() -> bool | None:
        found = describe(scope, instance)
        state = found["State"]["Name"]
        if state in GONE:
            raise BuildError(f"the instance {instance} is {state} and not stopped: {reason(found)}")
        return True if state == "stopped" else None

    wait(look, f"the instance {instance} is not stopped", timeout=timeout, clock=scope.aws.clock, first=1.0)


# -- taking away --------------------------------------------------------------------------------------------------------------


def terminate(scope: Scope, started: Started | None = None, *, spot: bool = False) -> None:
    """Terminate the machine's instances, and wait until they are: only then does their group become free. Besides the known ones it is
    what bears the machine's tags: a start's answer may have been lost, and a persistent spot request starts instances by itself."""
    known = started or Started(unanswered=True)
    ended: set[str] = set()
    for number in range(LOOKS if known.unanswered else 2 if spot else 1):
        if number:
            scope.aws.clock.sleep(LOOK_AGAIN_SECONDS * number)
        _find(scope, known)
        if spot:
            _cancel(scope, known)  # first: a persistent request would start another instance
        for instance in [each for each in known.instances if each not in ended]:
            _end(scope, instance, known)
            ended.add(instance)


def _end(scope: Scope, instance: str, known: Started) -> None:
    """Terminate an instance. While a new instance may still be invisible, "not found" is taken as "not yet", not as "terminated"."""
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
    """Note the machine's instances that are not terminated. What was just started may not be visible yet."""
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
    """Cancel the machine's spot requests, and note what they have started."""
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
