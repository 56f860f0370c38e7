"""What is made to go wrong: which call, how often, after how many that go well.

Kinds that answer instead of the action: the names in ERRORS. Kinds that come after the action took effect: "reset" (the connection is
reset, the answer lost). Kinds that fall on what the action makes: the names in EFFECTS.
"""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from typing import Any

from tests.ec2.asked import Asked
from tests.ec2.refusals import Refused

ERRORS = {
    "RequestLimitExceeded": ("Request limit exceeded.", 503),
    "InsufficientInstanceCapacity": ("We currently do not have sufficient capacity in the Availability Zone you requested.", 500),
    "InternalError": ("An internal error has occurred.", 500),
    "ServiceUnavailable": ("The service is unavailable. Try again shortly.", 503),
    "ExpiredToken": ("The security token included in the request is expired", 400),
    "AccessDenied": ("You are not authorized to perform this operation.", 403),
    "NotFound": ("does not exist (yet)", 400),
    "InvalidParameterValue": ("a value that never becomes right", 400),
    "InUse": ("The snapshot is currently in use by ami-0123456789abcdef0", 400),
    "VcpuLimitExceeded": ("You have requested more vCPU capacity than your current limit allows.", 400),
}
EFFECTS = {
    "slow": "all changes of state that the call begins take `seconds` longer",
    "snapshot-error": "the snapshot that is made ends in error",
    "image-failed": "the image that is made ends in failed",
    "spot-reclaim": "the instance is taken away `seconds` after it ran",
    "instance-fails": "the instance goes from pending to terminated (Server.InternalError)",
    "impaired": "the instance never passes its status checks",
    "refresh-failed": "the instance refresh fails after its first instances",
}
MISSING = {
    "DescribeInstances": "InvalidInstanceID.NotFound", "DescribeInstanceStatus": "InvalidInstanceID.NotFound",
    "GetConsoleOutput": "InvalidInstanceID.NotFound", "StopInstances": "InvalidInstanceID.NotFound",
    "TerminateInstances": "InvalidInstanceID.NotFound",
    "CreateImage": "InvalidInstanceID.NotFound", "DescribeImages": "InvalidAMIID.NotFound", "CopyImage": "InvalidAMIID.NotFound",
    "DescribeSnapshots": "InvalidSnapshot.NotFound", "RegisterImage": "InvalidSnapshot.NotFound", "RunInstances": "InvalidGroup.NotFound",
    "AuthorizeSecurityGroupIngress": "InvalidGroup.NotFound", "DescribeSecurityGroups": "InvalidGroup.NotFound",
    "DescribeKeyPairs": "InvalidKeyPair.NotFound", "CreateTags": "InvalidID",
}  # fmt: skip


@dataclass
class Fault:
    """`action`: "RunInstances", "ec2:RunInstances" or "*". The first `skip` matching calls go well, the next `times` do not."""

    action: str
    kind: str
    times: int = 1
    skip: int = 0
    seconds: float = 1.0
    region: str = ""


class Faults:
    def __init__(self) -> None:
        self.active: list[Fault] = []
        self.fired: list[str] = []  # "ec2:RunInstances reset"
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        if fault.kind not in ERRORS and fault.kind not in EFFECTS and fault.kind != "reset":
            raise ValueError(f"no fault is called {fault.kind}: {', '.join([*ERRORS, *EFFECTS, 'reset'])}")
        with self._lock:
            self.active.append(fault)

    def take(self, asked: Asked) -> list[Fault]:
        """What this call is to suffer."""
        with self._lock:
            found = [fault for fault in self.active if _matches(fault, asked) and _due(fault)]
            self.fired += [f"{asked.name} {fault.kind}" for fault in found]
            return found

    def clear(self) -> None:
        with self._lock:
            self.active, self.fired = [], []

    def state(self) -> dict[str, Any]:
        return {"active": [asdict(fault) for fault in self.active if fault.times > 0], "fired": list(self.fired)}


def _matches(fault: Fault, asked: Asked) -> bool:
    return fault.action in ("*", asked.action, asked.name) and fault.region in ("", asked.region)


def _due(fault: Fault) -> bool:
    if fault.skip > 0:
        fault.skip -= 1
        return False
    fault.times -= 1
    return fault.times >= 0


def lists(asked: Asked) -> bool:
    """Whether a describing request of EC2 names no ids: what is not visible yet is then just not among what is found."""
    return (
        asked.service == "ec2"
        and asked.action.startswith("Describe")
        and not any(name.endswith("Ids") and name != "OwnerIds" for name in asked.parameters)
    )


def error(fault: Fault, asked: Asked) -> Refused:
    """The answer in the words of the service."""
    message, status = ERRORS[fault.kind]
    return Refused(_code(fault.kind, asked), f"{message} (injected)", status, Reason="ACCOUNT_THROTTLED")


def _code(kind: str, asked: Asked) -> str:
    if kind == "RequestLimitExceeded" and asked.service != "ec2":
        return {"ebs": "RequestThrottledException"}.get(asked.service, "ThrottlingException" if asked.service == "ssm" else "Throttling")
    if kind == "AccessDenied":
        return {"ec2": "UnauthorizedOperation", "autoscaling": "AccessDenied", "sts": "AccessDenied", "iam": "AccessDenied"}.get(
            asked.service, "AccessDeniedException"
        )
    if kind == "ExpiredToken":
        return {"ec2": "RequestExpired"}.get(asked.service, "ExpiredTokenException" if asked.service in ("ssm", "ebs") else "ExpiredToken")
    if kind == "NotFound":
        return {"ebs": "ResourceNotFoundException", "ssm": "ParameterNotFound"}.get(
            asked.service, MISSING.get(asked.action, "ValidationError")
        )
    if kind == "InUse":
        return "InvalidSnapshot.InUse"
    if kind == "InternalError" and asked.service == "ebs":
        return "InternalServerException"
    return kind
