"""An EC2 instance as a machine."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from baker.aws.errors import AwsError, translated
from baker.core.errors import BakeError, BuildError, HostError
from baker.core.model import EgressEndpoint, Endpoint, MachineFacts
from baker.machines.base import Launch
from baker.machines.ec2 import instances
from baker.machines.ec2.instances import Attempt
from baker.machines.ec2.network import code_of
from baker.machines.ec2.scope import Scope
from baker.template.ec2 import Ec2Spec

SSH_PORT = 22
LOOK_SECONDS = 10.0  # shortest time between two requests for the state: the communicator asks for it more often
TIMES_MISSED = 2  # consecutive "not found" answers after which the instance no longer exists
STOP_SECONDS = 600.0  # lowest timeout of a shutdown: EC2 waits for minutes before it powers an instance off


class Ec2Machine:
    """Implements baker.machines.base.Machine."""

    def __init__(self, request: Launch, scope: Scope, spec: Ec2Spec, found: Mapping[str, Any], *, attempt: Attempt, runtime: Path) -> None:
        self.request, self.scope, self.id = request, scope, str(found["InstanceId"])
        self.kept = False
        self._spec, self._found, self._attempt, self._runtime = spec, found, attempt, runtime
        self._looked = scope.aws.clock.now()
        self._runs, self._missed = True, 0
        self._stopping = False

    @property
    def name(self) -> str:
        return self.request.name

    @property
    def runtime(self) -> Path:
        return self._runtime

    @property
    def console_log(self) -> Path:
        return self.request.scratch / "console.log"

    def host_address(self, port: int) -> str | None:
        return None  # an instance cannot reach this host's loopback

    def egress(self) -> Sequence[EgressEndpoint]:
        return ()

    @property
    def endpoint(self) -> Endpoint:
        """Where the instance's SSH listens. BuildError when it lacks the address that `ssh_interface` asks for."""
        spec = self._spec
        if spec.ssh_interface == "session_manager":
            return Endpoint(self.id, SSH_PORT, session_manager(self.id, self.scope))
        key, kind = ("PrivateIpAddress", "private") if self.is_inside else ("PublicIpAddress", "public")
        address = self._found.get(key)
        if not address:
            raise BuildError(
                f"the instance {self.id} has no {kind} address",
                hint="builder.associate_public_ip_address: true gives it one; ssh_interface: private_ip or session_manager needs none",
                code="ec2.no-address",
            )
        return Endpoint(str(address), SSH_PORT, bastion(spec) if spec.ssh_bastion_host else None)

    @property
    def is_inside(self) -> bool:
        return self._spec.ssh_interface == "private_ip"

    @property
    def facts(self) -> MachineFacts:
        from importlib.metadata import version

        return MachineFacts(
            hypervisor=f"EC2 {self._attempt.instance_type}",
            accelerator="none",
            accelerator_reason="spot" if self._attempt.spot else "on demand",
            machine_type=self._attempt.instance_type,
            connection=f"ec2:{self.scope.region}/{self._found.get('Placement', {}).get('AvailabilityZone', '')}",
            tools={"boto3": version("boto3")},
        )

    @property
    def restored(self) -> bool:
        return False  # an instance is always booted

    def reset(self) -> None:
        with translated(f"the reboot of {self.id}"):
            self.scope.client.reboot_instances(InstanceIds=[self.id])

    def running(self) -> bool:
        clock = self.scope.aws.clock
        if self._runs and clock.now() - self._looked >= LOOK_SECONDS:
            self._looked = clock.now()
            try:
                self._runs = instances.describe(self.scope, self.id)["State"]["Name"] == "running"
                self._missed = 0
            except BakeError as error:  # keep the last known state: one "not found" may be a stale answer
                self._missed = self._missed + 1 if isinstance(error, AwsError) and error.missing else 0
                self._runs = self._missed < TIMES_MISSED
        return self._runs

    def console_tail(self, lines: int = 20) -> tuple[str, ...]:
        """The last lines of the serial console that EC2 has, which may be minutes old. Writes all of them to the console log. Empty when
        EC2 does not answer."""
        try:
            with translated(f"the console of {self.id}"):
                text = self._console()
        except BakeError:
            return ()
        self.console_log.write_text(text)
        return tuple(text.splitlines()[-lines:])

    def _console(self) -> str:
        client = self.scope.client
        try:
            answer = client.get_console_output(InstanceId=self.id, Latest=True)
        except Exception as error:
            if code_of(error) != "UnsupportedOperation":  # only Nitro instance types support Latest
                raise
            answer = client.get_console_output(InstanceId=self.id)
        return str(answer.get("Output") or "")

    def forwarded(self, guest_port: int) -> int:
        raise HostError(
            f"bake does not forward port {guest_port} of an EC2 instance",
            hint="ssh -F CONFIG -L 8080:localhost:80 HOST forwards a port",
            code="machine.no-forwards",
        )

    def keep(self) -> None:
        self.kept = True

    def shutdown(self, timeout: float) -> None:
        self._stopping = True
        instances.stop(self.scope, self.id, max(timeout, STOP_SECONDS))
        self._runs = False

    def explain(self, error: BaseException) -> None:
        """Add a note to the error of a build when AWS has ended its instance: its state and the reason."""
        if self._stopping:
            return
        try:
            found = instances.describe(self.scope, self.id)
        except BakeError:
            return
        if found["State"]["Name"] != "running":
            error.add_note(f"the instance {self.id} is {found['State']['Name']}: {instances.reason(found)}")


def bastion(spec: Ec2Spec) -> str:
    """The ProxyCommand through the bastion, ssh_config(5). The user's own known_hosts must have the bastion's host key."""
    argv = ["ssh", "-o", "BatchMode=yes", "-p", str(spec.ssh_bastion_port)]
    if spec.ssh_bastion_private_key_file:
        argv += ["-o", "IdentitiesOnly=yes", "-i", str(spec.ssh_bastion_private_key_file.expanduser())]
    host = spec.ssh_bastion_host or ""
    whole = f"{spec.ssh_bastion_username}@{host}" if spec.ssh_bastion_username else host
    return f"{shlex.join(argv).replace('%', '%%')} -W '[%h]:%p' -- {shlex.quote(whole).replace('%', '%%')}"


def session_manager(instance: str, scope: Scope) -> str:
    """The ProxyCommand through Session Manager, ssh_config(5). It needs the AWS CLI and its session-manager-plugin."""
    access = scope.aws.access
    argv = ["aws", "ssm", "start-session", "--target", instance, "--document-name", "AWS-StartSSHSession", "--region", scope.region]
    argv += ["--profile", access.profile] if access.profile else []
    argv += ["--endpoint-url", access.endpoint_url] if access.endpoint_url else []
    return f"{shlex.join(argv).replace('%', '%%')} --parameters portNumber=%p"
