"""Check whether an AMI boots: start an instance and wait for AWS's status checks, and for an additional condition if there is one.

The instance status check sends an ARP request to the instance's network interface. It passes when a kernel with the right drivers runs and
has configured the network
(https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/monitoring-system-instance-status-check.html).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from baker.aws import waiter
from baker.aws.errors import AwsError, translated
from baker.aws.resources import BUILD_TAG, create
from baker.aws.session import Aws
from baker.core.clock import Clock
from baker.core.errors import BakeError, VerifyError
from baker.core.events import Reporter
from baker.core.model import Ami
from baker.core.resources import Resources

INSTANCE = "ami:instance"
BOOT_SECONDS = 900.0
CONSOLE_LINES = 20
DEAD = frozenset({"shutting-down", "terminated", "stopping", "stopped"})
INSTANCE_TYPES = {"x86_64": "t3.micro", "arm64": "t4g.micro"}


class BootCheck(Protocol):
    """A check that boots an AMI the way a user of it does."""

    def __call__(self, ami: Ami, resources: Resources, report: Reporter) -> None:
        """Raise VerifyError when the AMI does not boot. What is started for the check is tracked by `resources` and removed at the end."""


Launch = Callable[[Ami, Resources, Reporter], AbstractContextManager[str]]  # yields the ID of an instance, which is terminated at the end


@dataclass(frozen=True)
class StatusChecks:
    """Wait for both status checks of an instance, then call `answers`, which checks for more (SSH, for example)."""

    aws: Aws
    clock: Clock
    launch: Launch
    answers: Callable[[Ami, str], None] | None = None
    timeout: float = BOOT_SECONDS

    def __call__(self, ami: Ami, resources: Resources, report: Reporter) -> None:
        with self.launch(ami, resources, report) as instance:
            report.debug(f"waiting for the status checks of {instance}")
            try:
                waiter.wait(lambda: self._look(ami, instance), f"the status checks of {instance}", timeout=self.timeout, clock=self.clock)
                if self.answers is not None:
                    self.answers(ami, instance)
            except (AwsError, VerifyError) as error:
                raise self._failure(ami, instance, error) from error

    def _look(self, ami: Ami, instance: str) -> bool | None:
        with translated(f"the status of {instance} in {ami.region}"):
            found = self.aws.client("ec2", ami.region).describe_instance_status(InstanceIds=[instance], IncludeAllInstances=True)
        for status in found["InstanceStatuses"]:
            if status["InstanceState"]["Name"] in DEAD:
                raise VerifyError(f"{instance} is {status['InstanceState']['Name']}")
            checks = [status[name]["Status"] for name in ("InstanceStatus", "SystemStatus")]
            if "impaired" in checks:
                raise VerifyError(f"a status check of {instance} failed")
            return True if checks == ["ok", "ok"] else None
        return None

    def _failure(self, ami: Ami, instance: str, error: BakeError) -> VerifyError:
        """The error for an AMI that did not boot, with the last lines of its console as a note."""
        failure = VerifyError(
            f"{ami.id} does not boot: {error.message}",
            hint="docs/aws.md lists what an image needs to boot on EC2",
            code="verify.ami-boot",
        )
        lines = self._console(ami, instance)
        if lines:
            failure.add_note("\n".join(["the last lines of its console:", *(f"  {line}" for line in lines)]))
        return failure

    def _console(self, ami: Ami, instance: str) -> list[str]:
        try:
            with translated(f"the console of {instance}"):
                output = self.aws.client("ec2", ami.region).get_console_output(InstanceId=instance, Latest=True).get("Output", "")
        except BakeError:
            return []
        return str(output).splitlines()[-CONSOLE_LINES:]


@dataclass(frozen=True)
class Instances:
    """Start instances in the region's default network, or in a subnet, with its default security group and without a key pair."""

    aws: Aws
    instance_type: str = ""
    subnet: str = ""

    @contextmanager
    def __call__(self, ami: Ami, resources: Resources, report: Reporter) -> Iterator[str]:
        """Start an instance and terminate it at the end. If that fails, warn: the AMI is good, and `resources` still tracks it."""
        run, name = resources.run, f"verify {ami.id}"
        instance = create(resources, self.aws, INSTANCE, region=ami.region, name=name, action=lambda: self._run(ami, run))
        try:
            yield instance
        except BaseException as error:
            resources.release_after(error, INSTANCE, region=ami.region)
            raise
        try:
            resources.release(INSTANCE, region=ami.region)
        except BakeError as error:
            report.warn(f"{instance} in {ami.region} is still running: {error.message}", hint="bake sweep terminates it")

    def _run(self, ami: Ami, run: str) -> str:
        more: dict[str, Any] = {"SubnetId": self.subnet} if self.subnet else {}
        tags = [{"Key": BUILD_TAG, "Value": run}, {"Key": "Name", "Value": f"bake verify {ami.name}"}]
        with translated(f"starting an instance of {ami.id} in {ami.region}"):
            answer = self.aws.client("ec2", ami.region).run_instances(
                ImageId=ami.id,
                InstanceType=self.instance_type or INSTANCE_TYPES[ami.architecture],
                MinCount=1,
                MaxCount=1,
                ClientToken=f"{run}-{secrets.token_hex(8)}",  # random: an earlier check of this run may have terminated its instance
                MetadataOptions={"HttpTokens": "required", "HttpEndpoint": "enabled"},
                TagSpecifications=[{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume", "network-interface")],
                **more,
            )
        return str(answer["Instances"][0]["InstanceId"])
